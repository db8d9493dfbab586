// SPDX-License-Identifier: MIT
// One client, uid or address, followed live.

import { lines } from "./api.js";
import { Note, button, el, field, formValues, section, setText } from "./dom.js";
import { clockMs, count, ms } from "./format.js";

const LINES_MAX = 1000;
const KNOWN = new Set(["at_unix_ms", "since_ms", "shard", "connection_id", "event"]);

function rest(line) {
  return Object.entries(line).filter(([key]) => !KNOWN.has(key)).map(([key, value]) => `${key}=${typeof value === "string" ? value : JSON.stringify(value)}`).join("  ");
}

function row(line) {
  const at = typeof line.at_unix_ms === "number" ? clockMs(new Date(line.at_unix_ms)) : "";
  const since = typeof line.since_ms === "number" ? `+${ms(line.since_ms)}` : "";
  return el("li", { "data-event": line.event },
    el("time", {}, at), el("span", { class: "since" }, since), el("span", { class: "who" }, line.connection_id ? `${line.connection_id}` : ""),
    el("b", {}, line.event ?? "?"), el("span", { class: "rest" }, rest(line)));
}

export function create() {
  const form = el("form", { class: "search", id: "trace-form" },
    field({ name: "kind", label: "Follow", options: [["client", "client (id)"], ["uid", "uid"], ["address", "address or CIDR"]] }),
    field({ name: "value", label: "Which", required: true, maxlength: 256 }), field({ name: "seconds", label: "For, s", type: "number", value: 60, min: 1, max: 86400, required: true }));
  const start = el("button", {}, "Start"), stop = button("Stop", () => running?.abort(), { disabled: true }), clear = button("Clear", () => empty());
  form.append(el("div", { class: "bar" }, start, stop, clear));
  const note = new Note(), list = el("ol", { class: "trace", id: "trace-lines", tabindex: "0", "aria-label": "Lines of the trace" }), amount = el("p", { class: "soft", id: "trace-count" });
  let running = null, waiting = [], drawing = 0, seen = 0;

  function empty() {
    list.replaceChildren();
    waiting = [];
    seen = 0;
    tell();
  }

  const tell = () => setText(amount, seen ? `${count(seen)} lines${seen > LINES_MAX ? `, the last ${count(LINES_MAX)} are shown` : ""}` : "");

  // Lines are put in place once a frame, however many come; what would leave at once is never made.
  function draw() {
    drawing = 0;
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    list.append(...waiting.slice(-LINES_MAX).map(row));
    waiting = [];
    while (list.childElementCount > LINES_MAX) list.firstElementChild.remove();
    if (atEnd) list.scrollTop = list.scrollHeight;
    tell();
  }

  function add(line) {
    seen++;
    waiting.push(line);
    if (waiting.length > 2 * LINES_MAX) waiting.splice(0, LINES_MAX);
    drawing ||= document.hidden ? setTimeout(draw, 1000) : requestAnimationFrame(draw);
  }

  async function run() {
    const { kind, value, seconds } = formValues(form);
    running?.abort();
    const mine = running = new AbortController();
    empty();
    start.disabled = true;
    stop.disabled = false;
    note.say(`Following ${kind} ${value}.`);
    try {
      for await (const line of lines("api/trace", { [kind]: value, seconds }, mine.signal)) add(line);
      if (running === mine) note.say("The trace is over.");
    } catch (error) {
      if (running === mine) note.say(error.status === -1 ? "Stopped." : error.message, error.status !== -1);
    }
    if (running !== mine) return;
    running = null;
    start.disabled = false;
    stop.disabled = true;
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });

  return {
    name: "trace", title: "Trace",
    root: section("Trace", form, note.root, list, amount),
    show(params) {
      for (const kind of ["client", "uid", "address"]) {
        if (!params[kind]) continue;
        form.elements.kind.value = kind;
        form.elements.value.value = params[kind];
      }
    },
    hide() { running?.abort(); }, // a trace costs the gateway something: none goes on unseen
  };
}
