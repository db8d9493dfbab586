// SPDX-License-Identifier: MIT
// Workers: one row each, asked for once a second while they are looked at.

import * as actions from "./actions.js";
import { get } from "./api.js";
import { drawBars } from "./charts.js";
import { Note, button, el, hash, section } from "./dom.js";
import { bytes, count, many, ms, ns, rate, seconds, yes } from "./format.js";
import { Table, buttonsColumn, linkColumn, numberColumn, pillColumn, textColumn } from "./tables.js";

const HEALTH = { ok: "ok", slow: "wait", full: "bad", stuck: "bad" };

function bars() {
  const canvas = el("canvas", { class: "bars", "aria-hidden": "true" });
  return { node: canvas, update: (row) => drawBars(canvas, row.queue_time?.buckets ?? []) };
}

const queueTime = (key, title, help) => ({
  key, title, help, numeric: true, value: (row) => row.queue_time?.[key] ?? null, text: (row) => ns(row.queue_time?.[key]),
});

function table() {
  return new Table({
    caption: "Workers", id: "workers", rowKey: (row) => `${row.shard} ${row.key}`, sort: "key", empty: "No worker is connected.",
    columns: [
      linkColumn("key", "Worker", (row) => [row.key, hash("clients", { worker: row.key })]),
      pillColumn("health", "Health", (row) => [HEALTH[row.health] ?? "none", row.health], { help: "slow: something has waited for it for more than 1 s; full: its buffer is full, its clients are paused; stuck: something has waited for more than 10 s" }),
      textColumn("draining", "Draining", { text: (row) => yes(row.draining) }),
      numberColumn("clients", "Clients", count), numberColumn("paused_clients", "Paused", count, { help: "clients that are not read because it does not read" }),
      numberColumn("queue_bytes", "Queue", bytes), numberColumn("queue_age_ms", "Queue age", ms, { help: "how long its oldest event has waited" }),
      queueTime("p50_ns", "Wait p50", "how long what is queued to it waits until the kernel has taken it"), queueTime("p99_ns", "Wait p99"),
      numberColumn("out_rate", "Events /s", rate, { help: "to it" }), numberColumn("in_rate", "Packets /s", rate, { help: "from it" }),
      numberColumn("messages_out", "Events", count), numberColumn("bytes_out", "Bytes to it", bytes),
      numberColumn("messages_in", "Packets", count), numberColumn("bytes_in", "Bytes from it", bytes),
      numberColumn("idle_s", "Silent", seconds, { help: "since something was read from it" }), numberColumn("connected_s", "Connected", seconds),
      textColumn("address", "Address"), numberColumn("shard", "Shard", count, { help: "that has its connection" }), numberColumn("number", "Number", count),
      textColumn("clients_of", "Clients per shard", { value: null, text: (row) => (row.clients_of ?? []).map((n, shard) => `${shard}: ${count(n)}`).join("  ") || "–" }),
      { key: "waits", title: "Wait of samples", help: "distribution of the wait, from 8 µs on, each bar twice the time of the one before", value: (row) => row.queue_time?.count ?? 0, numeric: true, make: bars },
      { ...queueTime("sum_ns", "Waited in all") }, { ...queueTime("count", "Samples"), text: (row) => count(row.queue_time?.count) },
      buttonsColumn([
        ["Drain…", (row) => actions.drain("worker", row.key), (row) => !row.draining],
        ["Undrain…", (row) => actions.undrain("worker", row.key), (row) => row.draining],
        ["Close its clients…", (row) => actions.closeClients({ worker: row.key })],
      ]),
    ],
  });
}

export function create() {
  const workers = table(), note = new Note();
  let asked = null, before = new Map();

  function withRates(rows) {
    const t = performance.now(), now = new Map();
    const out = rows.map((row) => {
      const key = `${row.shard} ${row.key}`, old = before.get(key), dt = old ? (t - old.t) / 1000 : 0;
      now.set(key, { t, messages_in: row.messages_in, messages_out: row.messages_out });
      const of = (name) => (old && dt > 0 && row[name] >= old[name] ? (row[name] - old[name]) / dt : null);
      return { ...row, in_rate: of("messages_in"), out_rate: of("messages_out") };
    });
    before = now;
    return out;
  }

  async function poll() {
    if (asked) return;
    asked = new AbortController();
    try {
      const body = await get("api/workers", {}, { signal: asked.signal });
      workers.update(withRates(body.workers));
      const sick = body.workers.filter((row) => row.health !== "ok").length;
      note.missing(body, `${many(body.workers.length, "worker")}${sick ? `, ${sick} not well` : ""}.`);
    } catch (error) {
      note.error(error);
    }
    asked = null;
  }

  return {
    name: "workers", title: "Workers",
    root: section("Workers", el("div", { class: "bar" }, note.root, button("Rebalance…", () => actions.rebalance())), workers.root),
    hide() { asked?.abort(); },
    status: poll,
  };
}
