// SPDX-License-Identifier: MIT
// What the page can do to a gateway. Each action first says what will happen and to how many, and does nothing before
// it is confirmed; what came of it is shown, and kept in a list for as long as the page is open.

import { get, post } from "./api.js";
import { button, el, field, formValues, setState, setText } from "./dom.js";
import { clock, count, many, seconds as time } from "./format.js";

const RESULTS_SHOWN = 4, RESULTS_KEPT = 100, RESULT_MS = 15000;
const COUNT_PAGE = 200, COUNT_PAGES = 5;
const CHECK_MS = 120000;

let app = null;
export function setup(theApp) {
  app = theApp;
}

// ---- results

/** Newest first: {at, title, state ("busy", "ok", "bad"), text, details}; "result" is dispatched on a change. */
export const results = Object.assign(new EventTarget(), { list: [] });

function addResult(title) {
  const result = { at: new Date(), title, state: "busy", text: "under way…", details: [] };
  results.list.unshift(result);
  results.list.length = Math.min(results.list.length, RESULTS_KEPT);
  const toast = el("div", { class: "toast", "data-state": "busy" });
  const show = () => toast.replaceChildren(
    button("×", () => toast.remove(), { class: "quiet close", "aria-label": "Close this message" }), ...resultNodes(result));
  const shown = document.getElementById("results");
  show();
  shown.append(toast);
  while (shown.childElementCount > RESULTS_SHOWN) shown.firstElementChild.remove();
  return (state, text, details = []) => {
    Object.assign(result, { state, text, details });
    setState(toast, state);
    show();
    if (state === "ok") setTimeout(() => toast.remove(), RESULT_MS * (details.length ? 3 : 1));
    results.dispatchEvent(new Event("result"));
  };
}

export function resultNodes(result) {
  return [
    el("strong", {}, result.title),
    el("p", {}, result.state === "bad" ? `Failed: ${result.text}` : result.text),
    result.details.length ? el("ul", {}, ...result.details.map((line) => el("li", {}, line))) : null,
  ].filter(Boolean);
}

// ---- the dialog

/**
 * title; what: texts of what will happen; howMany: a promise's function, its text says how many it concerns;
 * fields (dom.js); label of the button; run(values) does it; done(body) -> text or {text, details, bad}.
 * The answer, or null when it was not confirmed or failed.
 */
function confirmed({ title, what, howMany, fields = [], label, run, done }) {
  return new Promise((resolve) => {
    const amount = el("p", { class: "amount", role: "status" }, howMany ? "Counting…" : "");
    const go = el("button", { class: "danger", value: "go", disabled: Boolean(howMany) }, label);
    const cancel = el("button", { class: "quiet", type: "button" }, "Cancel");
    const inputs = fields.map(field);
    const form = el("form", { method: "dialog" },
      el("h2", { id: "confirm-title" }, title), ...what.map((text) => el("p", {}, text)), howMany ? amount : null,
      inputs.length ? el("div", { class: "fields" }, ...inputs) : null, el("div", { class: "buttons" }, cancel, go));
    const dialog = el("dialog", { class: "confirm", "aria-labelledby": "confirm-title" }, form);
    cancel.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", async () => {
      dialog.remove();
      resolve(dialog.returnValue === "go" ? await perform(title, () => run(formValues(form)), done) : null);
    });
    document.body.append(dialog);
    dialog.showModal();
    cancel.focus();
    howMany?.().then((text) => setText(amount, text), (error) => setText(amount, `How many is not known: ${error.message}.`))
      .finally(() => { go.disabled = false; });
  });
}

async function perform(title, run, done) {
  const finish = addResult(title);
  try {
    const body = await run();
    const said = done(body);
    if (typeof said === "string") finish("ok", withMissing(body, said));
    else finish(said.bad ? "bad" : "ok", withMissing(body, said.text), said.details);
    app.refresh();
    return body;
  } catch (error) {
    finish("bad", error.message, Array.isArray(error.body?.problems) ? error.body.problems.map(String) : []);
    return null;
  }
}

function withMissing(body, text) {
  return body.missing?.length ? `${text} No answer of shard ${body.missing.join(", ")}.` : text;
}

// ---- how many

async function countMatches(filters) {
  const names = Object.keys(filters), [name] = names, value = filters[name];
  if (names.length === 1) {
    if (name === "client") return { n: 1 };
    if (name === "all") return { n: app.status.clients_n };
    if (name === "shard") return { n: shardOf(value)?.clients ?? 0 };
    if (name === "listener") return { n: app.status.listeners.find((one) => one.name === value)?.clients ?? 0 };
    if (name === "worker") return { n: (await get("api/workers")).workers.find((one) => one.key === value)?.clients ?? 0 };
    if (name === "uid") return sumOf(await get("api/uids", { name: value }), "uids");
    if (name === "group") return sumOf(await get("api/groups", { name: value }), "groups");
  }
  let n = 0, cursor = null;
  for (let page = 0; page < COUNT_PAGES; page++) {
    const body = await get("api/clients", { ...filters, limit: COUNT_PAGE, cursor });
    n += body.clients.length;
    cursor = body.cursor;
    if (!cursor) return { n };
  }
  return { n, more: true };
}

function sumOf(body, list) {
  return { n: body[list].reduce((sum, row) => sum + row.clients, 0) };
}

const shardOf = (shard) => app.status.shards.find((one) => one.shard === Number(shard));

async function concerns(filters) {
  const { n, more } = await countMatches(filters);
  return `This concerns ${more ? "more than " : ""}${many(n, "client")} now.`;
}

// ---- fields

const codeField = (value) => ({ name: "code", label: "Close code", type: "number", value, min: 1000, max: 4999, required: true });
const reasonField = { name: "reason", label: "Reason, for the client", maxlength: 120 };
const secondsField = (label, value) => ({ name: "seconds", label, type: "number", value, min: 0, max: 86400, required: true });
const jitterField = (value) => ({ name: "jitter", label: "Jitter, %", help: "percent of the time between two that is left to chance", type: "number", value, min: 0, max: 100, required: true });

/** Some names cannot be given back to the gateway as they are shown (docs/ADMIN-API.md: not UTF-8, or cut). */
export const isWhole = (name) => typeof name === "string" && !name.includes("\uFFFD") && new TextEncoder().encode(name).length < 256;

const FILTER_NAMES = {
  address: "address", uid: "uid", group: "group", worker: "worker", listener: "listener", shard: "shard", client: "client",
  age_min: "connected for at least (s)", age_max: "connected for at most (s)", idle_min: "idle for at least (s)", queue_min: "queue of at least (bytes)",
};
export const filterText = (filters) => Object.entries(filters).map(([name, value]) => `${FILTER_NAMES[name] ?? name} ${value}`).join(", ");

// ---- the actions

export function closeClients(filters) {
  const one = Object.keys(filters).join() === "client", all = filters.all === "yes";
  const whom = one ? `Client ${filters.client}` : all ? "Every client of this gateway" : `Every client with ${filterText(filters)}`;
  return confirmed({
    title: one ? `Close client ${filters.client}` : all ? "Close all clients" : `Close the clients with ${filterText(filters)}`,
    what: [`${whom} is sent the close code and disconnected. Its worker hears ON_CLOSE. It may connect again at once.`],
    howMany: () => concerns(filters),
    fields: one ? [codeField(1000), reasonField] : [codeField(1000), reasonField, secondsField("Paced over, s", 0), jitterField(0)],
    label: one ? "Close the client" : "Close the clients",
    run: (values) => post("api/close", { ...filters, ...values }),
    done: (body) => (body.closing ? `${many(body.closing, "client")} going to be closed.` : `${many(body.closed, "client")} closed.`),
  });
}

export function kick(uid) {
  return confirmed({
    title: `Kick uid ${uid}`,
    what: [`Every client that is bound to uid ${uid} is sent the close code and disconnected. It may connect again at once.`],
    howMany: () => concerns({ uid }),
    fields: [codeField(1000), reasonField],
    label: "Kick",
    run: (values) => post("api/kick", { uid, ...values }),
    done: (body) => `${many(body.closed, "client")} closed.`,
  });
}

export function ban(address) {
  return confirmed({
    title: `Ban ${address}`,
    what: [`Clients from ${address} are closed, and no new ones are let in from there until the ban ends. It outlives a restart of the gateway.`],
    howMany: () => concerns({ address }),
    fields: [{ ...secondsField("For, s", 3600), min: 1, max: 4294967295 }],
    label: "Ban",
    run: (values) => post("api/ban", { address, ...values }),
    done: () => `${address} is banned.`,
  });
}

export function unban(address) {
  return confirmed({
    title: `Unban ${address}`,
    what: [`Clients from ${address} are let in again, as far as the lists and limits of the configuration allow it.`],
    label: "Unban",
    run: () => post("api/unban", { address }),
    done: () => `${address} is not banned any more.`,
  });
}

const DRAIN = {
  shard: {
    name: (value) => `shard ${value}`,
    what: (value) => `Shard ${value} takes no new clients. Those that it has are closed one after the other over the time, and may connect to other shards.`,
    back: (value) => `Shard ${value} takes new clients again. Clients that were not closed yet stay.`,
  },
  worker: {
    name: (value) => `worker ${value}`,
    what: (value) => `The clients of worker ${value} are bound to other workers over the time; none is disconnected. It gets no new ones.`,
    back: (value) => `Worker ${value} gets new clients again.`,
  },
  node: {
    name: () => "the node",
    what: () => "The whole gateway takes no new clients and is not ready (/readyz) any more. All clients are closed one after the other over the time.",
    back: () => "The whole gateway takes new clients again. Clients that were not closed yet stay.",
  },
};

const capital = (text) => text[0].toUpperCase() + text.slice(1);

/** kind: shard, worker or node (value "yes"). */
export function drain(kind, value) {
  const { name, what } = DRAIN[kind];
  const closing = [codeField(1001), reasonField, jitterField(20)];
  return confirmed({
    title: `Drain ${name(value)}`,
    what: [what(value)],
    howMany: () => concerns(kind === "node" ? { all: "yes" } : { [kind]: value }),
    fields: [secondsField("Over, s", 30), ...(kind === "worker" ? [] : closing)],
    label: "Drain",
    run: (values) => post("api/drain", { [kind]: value, ...values }),
    done: () => `${capital(name(value))} is being drained.`,
  });
}

export function undrain(kind, value) {
  const { name, back } = DRAIN[kind];
  return confirmed({
    title: `Undrain ${name(value)}`,
    what: [back(value)],
    label: "Undrain",
    run: () => post("api/undrain", { [kind]: value }),
    done: () => `${capital(name(value))} takes new clients again.`,
  });
}

/** All connections of a shard to the others, or with back those that are its own back to it. */
export function evacuate(shard, back) {
  const pause = "For a moment (milliseconds to a few seconds) no message moves in the whole gateway; nobody is disconnected, and nothing is lost.";
  return confirmed({
    title: back ? `Bring back the connections of shard ${shard}` : `Evacuate shard ${shard}`,
    what: [
      back ? `Clients whose ids belong to shard ${shard} come back to it, and it takes new ones again.`
        : `All connections of shard ${shard} move to other shards, and it gets no new ones, until they are brought back.`,
      pause,
    ],
    howMany: () => concerns(back ? { all: "yes" } : { shard }),
    label: back ? "Bring back" : "Evacuate",
    run: () => post("api/evacuate", back ? { shard, back: "yes" } : { shard }),
    done: (body) => `${many(body.clients, "client")} and ${many(body.links, "internal connection")} moved, pause ${count(body.pause_ms)} ms.`,
  });
}

export function rebalance() {
  return confirmed({
    title: "Rebalance the workers",
    what: ["Clients are bound to other workers until every worker has about as many as the others. None is disconnected; what they say next goes to their new worker."],
    howMany: async () => {
      const { workers } = await get("api/workers");
      const mean = workers.reduce((sum, one) => sum + one.clients, 0) / Math.max(1, workers.length);
      const above = workers.reduce((sum, one) => sum + Math.max(0, one.clients - mean), 0);
      return `${many(workers.length, "worker")}; about ${many(Math.floor(above), "client")} will move.`;
    },
    fields: [secondsField("Over, s", 10)],
    label: "Rebalance",
    run: (values) => post("api/rebalance", values),
    done: (body) => `${many(body.moved, "client")} moved.`,
  });
}

export function logLevel(level) {
  return confirmed({
    title: `Log level ${level}`,
    what: [`All processes of the gateway log at level ${level}, until the next reload or start.`,
      level === "debug" ? "Level debug writes a lot for each message: it costs speed and disk." : ""].filter(Boolean),
    howMany: async () => `This concerns ${many(app.status.processes.length, "process", "processes")}. The level is ${app.status.log_level} now.`,
    label: "Change the level",
    run: () => post("api/log", { level }),
    done: () => `The log level is ${level}.`,
  });
}

export function reload() {
  return confirmed({
    title: "Reload the configuration",
    what: [`${app.status.config} and the files that it names (certificates, lists) are read again. If anything is wrong with it, nothing changes.`],
    howMany: async () => `This concerns all ${many(app.status.processes.length, "process", "processes")}; ${many(app.status.clients_n, "client")} stay connected.`,
    label: "Reload",
    run: () => post("api/reload"),
    done: (body) => {
      const changed = body.changed ?? [];
      return {
        text: changed.length ? `${many(changed.length, "key")} changed.` : "Read again; no key changed.",
        details: changed.map((one) => `[${one.section}] ${one.key}: ${one.live ? "holds now" : "holds after the next start"}`),
      };
    },
  });
}

export function check() {
  return confirmed({
    title: "Check the tables",
    what: ["Each shard compares its tables with each other (ids, uids, groups, bindings, timers, counts) in slices. Nothing is changed, and clients are not kept waiting."],
    howMany: async () => `This concerns ${many(app.status.shards.length, "shard")} with ${many(app.status.clients_n, "client")}.`,
    label: "Check",
    run: () => get("api/check", {}, { timeoutMs: CHECK_MS }),
    done: (body) => {
      const looked = body.shards.reduce((sum, one) => sum + one.looked_at, 0);
      const problems = body.shards.flatMap((one) => one.problems.map((text) => `shard ${one.shard}: ${text}`));
      return { bad: !body.ok, text: body.ok ? `All is well: ${count(looked)} entries looked at.` : `${many(problems.length, "problem")}.`, details: problems };
    },
  });
}

export const resultTime = (result) => clock(result.at);
export const until = (unix_s) => time(Math.max(0, unix_s - Date.now() / 1000));
