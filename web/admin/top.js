// SPDX-License-Identifier: MIT
// The clients that talk most, read slowest, and the largest groups and uids.

import * as actions from "./actions.js";
import { get } from "./api.js";
import { clientColumns, clientKey, closeColumn, openClient } from "./clients.js";
import { Note, el, field, formValues, hash, section } from "./dom.js";
import { bytes, count, many, rate } from "./format.js";
import { Table, linkColumn, numberColumn } from "./tables.js";

const BY = [
  ["messages_in", "top talkers, messages"], ["bytes_in", "top talkers, bytes"], ["messages_out", "most messages out"], ["bytes_out", "most bytes out"],
  ["queue", "slowest readers"], ["groups", "largest groups"], ["uids", "largest uids"],
];
const VALUE = { messages_in: ["Messages in /s", rate], bytes_in: ["Bytes in /s", bytes], messages_out: ["Messages out /s", rate], bytes_out: ["Bytes out /s", bytes], queue: ["Queue", bytes] };
const REPEAT_MS = 1000;

function tableOf(by) {
  if (by === "groups" || by === "uids") {
    const filter = by === "groups" ? "group" : "uid";
    return new Table({
      caption: by === "groups" ? "Largest groups" : "Largest uids", id: "top", rowKey: (row) => row.name, empty: "There are none.",
      columns: [linkColumn("name", "Name", (row) => [row.name, actions.isWhole(row.name) ? hash("clients", { [filter]: row.name }) : null], { wide: true }), numberColumn("clients", "Clients", count)],
    });
  }
  const [title, format] = VALUE[by], columns = clientColumns(openClient).filter((column) => by !== "queue" || column.key !== "queue_bytes");
  columns.splice(1, 0, numberColumn("value", title, format));
  return new Table({ caption: BY.find(([key]) => key === by)[1], id: "top", rowKey: clientKey, empty: "There are none.", columns: [...columns, closeColumn()] });
}

export function create() {
  const form = el("form", { class: "search", id: "top-search" },
    field({ name: "by", label: "What", options: BY }), field({ name: "seconds", label: "Measured over, s", type: "number", value: 1, min: 1, max: 10, required: true }),
    field({ name: "limit", label: "Rows", type: "number", value: 20, min: 1, max: 200, required: true }),
    field({ name: "repeat", label: "Again and again", type: "checkbox", value: "yes" }),
    el("div", { class: "bar" }, el("button", {}, "Show")));
  const note = new Note(), place = el("div");
  let table = null, shown = null, asked = null, timer = 0;

  async function load() {
    clearTimeout(timer);
    asked?.abort();
    const mine = asked = new AbortController(), { by, seconds, limit } = formValues(form), measured = Object.hasOwn(VALUE, by) && by !== "queue";
    if (shown !== by) {
      table = tableOf(by);
      shown = by;
      place.replaceChildren(table.root);
      table.root.hidden = true;
    }
    if (table.root.hidden) note.say(measured ? `Measuring for ${seconds} s…` : "Asking…");
    try {
      const body = await get("api/top", { by, seconds: measured ? seconds : null, limit }, { signal: mine.signal, timeoutMs: 20000 });
      table.root.hidden = false;
      table.update(body.top);
      note.missing(body, `${many(body.top.length, "row")}.`);
    } catch (error) {
      note.error(error);
    }
    if (!mine.signal.aborted && form.elements.repeat.checked) timer = setTimeout(load, REPEAT_MS);
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    load();
  });
  form.elements.repeat.addEventListener("change", () => (form.elements.repeat.checked ? load() : clearTimeout(timer)));

  return {
    name: "top", title: "Top",
    root: section("Top", form, note.root, place),
    show: load,
    hide() {
      clearTimeout(timer);
      asked?.abort();
    },
  };
}
