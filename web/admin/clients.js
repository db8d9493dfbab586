// SPDX-License-Identifier: MIT
// Search for clients, and one client in full.

import * as actions from "./actions.js";
import { get } from "./api.js";
import { Note, button, el, field, formValues, hash, link, section } from "./dom.js";
import { bytes, count, many, seconds, text, yes } from "./format.js";
import { Pager, Table, buttonsColumn, linkColumn, numberColumn, pillColumn, textColumn } from "./tables.js";

const PANEL_POLL_MS = 2000;
const LIMITS = ["20", "100", "200"];
const STATES = { open: "ok", closing: "wait", handshake: "none", tls: "none", preamble: "none" };

const flags = (row) => [row.tls ? "TLS" : null, row.deflate ? "deflate" : null, row.paused ? "paused" : null].filter(Boolean).join(", ") || "–";

/** Columns of a client's row; open(row) shows it in full. */
export function clientColumns(open) {
  return [
    {
      key: "connection_id", title: "Client", numeric: true, value: (row) => row.connection_id,
      make: (current) => {
        const node = button("", () => open(current().connection_id), { class: "sort" });
        return { node, update: (row) => { node.textContent = text(row.connection_id || null); node.disabled = !row.connection_id; } };
      },
    },
    pillColumn("state", "State", (row) => [STATES[row.state] ?? "none", row.state]),
    linkColumn("uid", "Uid", (row) => [text(row.uid), actions.isWhole(row.uid) ? hash("clients", { uid: row.uid }) : null], { wide: true }),
    textColumn("address", "Address"), textColumn("listener", "Listener"), textColumn("worker", "Worker"),
    numberColumn("groups_n", "Groups", count), numberColumn("age_s", "Age", seconds), numberColumn("idle_s", "Idle", seconds, { help: "since its last byte" }),
    numberColumn("queue_bytes", "Queue", bytes), numberColumn("session_bytes", "Session", bytes),
    textColumn("flags", "Has", { value: flags, text: flags }), numberColumn("shard", "Shard", count), textColumn("client_id", "client_id"),
  ];
}

/** Rows of handshakes have no id yet. */
export const clientKey = (row) => (row.connection_id ? String(row.connection_id) : `${row.shard} ${row.listener} ${row.address}`);

export const closeColumn = () => buttonsColumn([["Close…", (row) => actions.closeClients({ client: row.connection_id }), (row) => Boolean(row.connection_id)]]);

// ---- one client in full

function deflateText(info) {
  if (!info) return "–";
  const takeover = (on) => (on ? "with" : "no");
  return `window of ${info.client_bits} bits in, ${info.server_bits} out, ${takeover(info.client_takeover)} takeover in, ${takeover(info.server_takeover)} out, ${bytes(info.bytes)}`;
}

const tlsText = (info) => (info ? [info.version, info.cipher, info.server_name ? `name ${info.server_name}` : null, info.client_subject ? `certificate ${info.client_subject}` : null,
  info.resumed ? "resumed" : "full handshake"].filter(Boolean).join(", ") : "–");

const DETAILS = [
  ["Connection", [
    ["connection_id", text], ["client_id", text], ["state", text], ["shard", text], ["listener", text], ["address", text], ["gateway_port", text, "gateway port"],
    ["age_s", seconds, "age"], ["idle_s", seconds, "idle"], ["tls_info", tlsText, "TLS"], ["deflate_info", deflateText, "compression"],
  ]],
  ["Reading and writing", [
    ["queue_bytes", bytes, "queued to it"], ["input_bytes", bytes, "of a message not whole"], ["session_bytes", bytes, "session"],
    ["unanswered_heartbeats", count, "unanswered heartbeats"], ["paused", yes, "not read"], ["rate_paused", yes, "not read: over its rate"],
    ["write_blocked", yes, "does not read"], ["traced", yes],
  ]],
  ["Waiting for a worker", [["parked_events", count, "events"], ["parked_bytes", bytes, "bytes"]]],
];

class Panel {
  constructor() {
    this.title = el("h2", { id: "panel-title", tabindex: "-1" });
    this.body = el("div");
    this.note = new Note();
    this.root = el("dialog", { class: "panel", "aria-labelledby": "panel-title" },
      el("div", { class: "panel-head" }, this.title, button("×", () => this.close(), { id: "panel-close", "aria-label": "Close the panel" })), this.note.root, this.body);
    this.root.addEventListener("keydown", (event) => { if (event.key === "Escape") this.close(); });
    document.body.append(this.root);
    this.timer = 0;
  }

  open(id) {
    if (!this.root.open) this.back = document.activeElement;
    this.id = String(id);
    this.title.textContent = `Client ${id}`;
    this.body.replaceChildren();
    this.shown = null;
    this.note.say("Asking…");
    if (!this.root.open) this.root.show(); // not modal: the rest of the page can be used beside it
    this.title.focus();
    this.poll();
  }

  close() {
    clearTimeout(this.timer);
    this.asked?.abort();
    if (!this.root.open) return;
    this.root.close();
    if (this.back?.isConnected) this.back.focus();
  }

  async poll() {
    clearTimeout(this.timer);
    this.asked?.abort();
    const asked = this.asked = new AbortController(), id = this.id;
    try {
      if (!document.hidden) this.show(await get(`api/clients/${encodeURIComponent(id)}`, {}, { signal: asked.signal }));
    } catch (error) {
      this.note.say(error.status === 404 ? "There is no such client, or not any more." : error.message, true);
      this.root.classList.add("stale");
    }
    if (asked === this.asked && !asked.signal.aborted && this.root.open) this.timer = setTimeout(() => this.poll(), PANEL_POLL_MS);
  }

  show(client) {
    this.note.say("");
    this.root.classList.remove("stale");
    const now = JSON.stringify(client, (key, value) => (key === "age_s" || key === "idle_s" ? undefined : value));
    if (now === this.shown) { // only the clock has moved: buttons keep the focus
      for (const [key, node] of this.clocks) node.textContent = seconds(client[key]);
      return;
    }
    this.shown = now;
    const focused = this.body.contains(document.activeElement) ? [...this.body.querySelectorAll("a, button")].indexOf(document.activeElement) : -1;
    this.clocks = [];
    this.body.replaceChildren(this.buttons(client), this.who(client), ...DETAILS.map(([title, lines]) => this.part(title, lines, client)));
    if (focused >= 0) this.body.querySelectorAll("a, button")[focused]?.focus();
  }

  buttons(client) {
    const ip = ipOf(client.address);
    return el("div", { class: "bar" },
      button("Close…", () => actions.closeClients({ client: client.connection_id })),
      actions.isWhole(client.uid) ? button("Kick its uid…", () => actions.kick(client.uid)) : null,
      ip ? button("Ban its address…", () => actions.ban(ip)) : null,
      link("Trace", hash("trace", { client: client.connection_id }), { class: "button" }));
  }

  who(client) {
    const uid = client.uid ? (actions.isWhole(client.uid) ? link(client.uid, hash("clients", { uid: client.uid })) : client.uid) : "–";
    const groups = (client.groups ?? []).map((name) => el("li", {}, actions.isWhole(name) ? link(name, hash("clients", { group: name })) : name));
    const more = client.groups_n - groups.length, worker = client.worker_info;
    return el("section", {}, el("h3", {}, "Who"), el("dl", { class: "pairs" },
      el("dt", {}, "uid"), el("dd", {}, uid), el("dt", {}, "clients of that uid"), el("dd", {}, count(client.uid_clients)),
      el("dt", {}, "worker"), el("dd", {}, client.worker ? link(client.worker, hash("clients", { worker: client.worker })) : "–"),
      el("dt", {}, "queued to that worker"), el("dd", {}, worker ? `${bytes(worker.queue_bytes)}${worker.full ? ", full" : ""}` : "–"),
      el("dt", {}, "groups"), el("dd", {}, groups.length ? el("ul", { class: "names" }, ...groups, more > 0 ? el("li", {}, `and ${count(more)} more`) : null) : "–")));
  }

  part(title, lines, client) {
    const list = el("dl", { class: "pairs" });
    for (const [key, format, name] of lines) {
      const value = el("dd", {}, format(client[key]));
      if (key === "age_s" || key === "idle_s") this.clocks.push([key, value]);
      list.append(el("dt", {}, name ?? key.replaceAll("_", " ")), value);
    }
    return el("section", {}, el("h3", {}, title), list);
  }
}

/** "192.0.2.1" of "192.0.2.1:4711", "2001:db8::1" of "[2001:db8::1]:4711". */
export function ipOf(address) {
  const match = /^\[([0-9a-fA-F:.]+)\]:\d+$|^([0-9.]+):\d+$/.exec(address ?? "");
  return match ? match[1] ?? match[2] : null;
}

let thePanel = null;
export function openClient(id) {
  thePanel ??= new Panel();
  thePanel.open(id);
}
export const closePanel = () => thePanel?.close();

// ---- search

const number = (name, label) => ({ name, label, type: "number", min: 0 });

export function create(app) {
  const listeners = el("select", { name: "listener" }), shards = el("select", { name: "shard" });
  const form = el("form", { class: "search", id: "client-search" },
    field({ name: "id", label: "connection_id or client_id", pattern: "[0-9]{1,10}|[0-9a-fA-F]{20}", title: "a number, or 20 hexadecimal digits" }),
    field({ name: "uid", label: "Uid" }), field({ name: "group", label: "Group" }), field({ name: "address", label: "Address or CIDR", placeholder: "192.0.2.0/24" }),
    field({ name: "worker", label: "Worker", list: "worker-keys" }),
    el("label", {}, el("span", {}, "Listener"), listeners), el("label", {}, el("span", {}, "Shard"), shards),
    field(number("age_min", "Age at least, s")), field(number("age_max", "Age at most, s")), field(number("idle_min", "Idle at least, s")), field(number("queue_min", "Queue at least, bytes")),
    field({ name: "limit", label: "On a page", options: LIMITS.map((n) => [n, n]), value: "100" }),
    el("datalist", { id: "worker-keys" }),
    el("div", { class: "bar" }, el("button", {}, "Search"), button("Clear", () => { location.hash = "#clients"; }), button("Close all that match…", () => closeAll())));
  const note = new Note();
  const table = new Table({ caption: "Clients", id: "clients", rowKey: clientKey, empty: "No client matches.", columns: [...clientColumns(openClient), closeColumn()] });
  const pager = new Pager((cursor) => load(cursor));
  let asked = null, known = "";

  const filters = () => {
    const values = formValues(form);
    delete values.id;
    delete values.limit;
    return values;
  };

  function closeAll() {
    const wanted = filters();
    if (Object.keys(wanted).length) actions.closeClients(wanted);
    else note.say("No filter is given. To close all clients there is the view Control.", true);
  }

  async function load(cursor) {
    asked?.abort();
    const mine = asked = new AbortController();
    note.say("Asking…");
    try {
      const body = await get("api/clients", { ...filters(), limit: form.elements.limit.value, cursor }, { signal: mine.signal });
      table.update(body.clients);
      note.missing(body, `${many(body.clients.length, "client")}${body.cursor || cursor ? " on this page" : ""}.`);
      return body.cursor ?? null;
    } catch (error) {
      note.error(error);
      return undefined;
    }
  }

  function options(select, values) {
    const chosen = select.value;
    select.replaceChildren(el("option", { value: "" }, "any"), ...values.map((one) => el("option", { value: one }, one)));
    select.value = chosen;
  }

  function learn(status) {
    const now = JSON.stringify([status.listeners.map((one) => one.name), status.shards.map((one) => one.shard)]);
    if (now === known) return;
    known = now;
    const [names, numbers] = JSON.parse(now);
    options(listeners, names);
    options(shards, numbers.map(String));
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const values = formValues(form);
    if (values.id) {
      openClient(values.id);
      return;
    }
    if (values.limit === "100") delete values.limit;
    const target = hash("clients", values);
    if (location.hash === target) pager.clear(), pager.go(0);
    else location.hash = target;
  });

  async function workerKeys() {
    try {
      const { workers } = await get("api/workers");
      form.querySelector("datalist").replaceChildren(...workers.map((row) => el("option", { value: row.key })));
    } catch { /* the keys are a help only */ }
  }

  return {
    name: "clients", title: "Clients",
    root: section("Clients", form, note.root, table.root, pager.root),
    show(params) {
      if (app.status) learn(app.status);
      form.reset();
      for (const [name, value] of Object.entries(params)) {
        const input = form.elements.namedItem(name);
        if (input?.tagName === "SELECT" && ![...input.options].some((one) => one.value === value)) input.append(el("option", { value }, value));
        if (input) input.value = value;
      }
      workerKeys();
      pager.clear();
      pager.go(0);
      if (params.id) openClient(params.id);
    },
    hide() { asked?.abort(); },
    status: learn,
  };
}
