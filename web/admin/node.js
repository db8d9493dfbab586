// SPDX-License-Identifier: MIT
// Shards, processes, listeners, registers: all from the status.

import * as actions from "./actions.js";
import { button, el, hash, section, setText } from "./dom.js";
import { bytes, count, ns, percent, seconds, yes } from "./format.js";
import { Table, buttonsColumn, linkColumn, numberColumn, pillColumn, textColumn } from "./tables.js";

const SHARD_STATES = { running: "ok", starting: "wait", draining: "wait", dead: "bad", stuck: "bad" };
const PROCESS_STATES = { alive: "ok", running: "ok", stuck: "bad", dead: "bad" };

function shardState(row) {
  if (row.missing) return ["bad", `${row.state}, no answer`];
  if (row.drained) return ["wait", `${row.state}, drained`];
  if (row.evacuated) return ["wait", `${row.state}, evacuated`];
  return [SHARD_STATES[row.state] ?? "none", row.state];
}

const roles = (row) => [row.edge ? "clients" : null, row.link ? "workers" : null].filter(Boolean).join(", ") || "–";

function shardsTable() {
  return new Table({
    caption: "Shards", id: "shards", rowKey: (row) => String(row.shard), sort: "shard",
    columns: [
      linkColumn("shard", "Shard", (row) => [String(row.shard), hash("clients", { shard: row.shard })], { numeric: true }),
      pillColumn("state", "State", shardState), textColumn("phase", "Phase"),
      textColumn("pid", "PID", { numeric: true, text: (row) => String(row.pid || "–") }),
      textColumn("cpu", "CPU", { numeric: true, help: "that it is pinned to", text: (row) => (row.cpu === null || row.cpu < 0 ? "any" : String(row.cpu)) }),
      textColumn("roles", "Takes", { value: roles, text: roles }),
      numberColumn("clients", "Clients", count), numberColumn("links", "Internal", count, { help: "connections of workers and GatewayClient" }),
      numberColumn("workers", "Workers", count), numberColumn("cpu_percent", "CPU %", percent),
      numberColumn("turn_longest_ns", "Longest turn", ns, { help: "of its loop, since it started" }), numberColumn("turns", "Turns", count),
      numberColumn("rss_bytes", "Memory", bytes), numberColumn("uptime_s", "Up", seconds), numberColumn("restarts", "Restarts", count),
      numberColumn("stacks", "Stacks", count, { help: "stacks that it has written to the log" }),
      textColumn("drained", "Drained", { text: (row) => yes(row.drained) }),
      buttonsColumn([
        ["Drain…", (row) => actions.drain("shard", row.shard), (row) => !row.drained],
        ["Undrain…", (row) => actions.undrain("shard", row.shard), (row) => row.drained],
        ["Evacuate…", (row) => actions.evacuate(row.shard, false), (row) => row.edge && !row.evacuated],
        ["Bring back…", (row) => actions.evacuate(row.shard, true), (row) => row.evacuated],
      ]),
    ],
  });
}

function processesTable() {
  return new Table({
    caption: "Processes", id: "processes", rowKey: (row) => `${row.kind} ${row.number}`,
    columns: [
      textColumn("kind", "Process", { text: (row) => (row.kind === "shard" ? `shard ${row.number}` : row.kind) }),
      pillColumn("state", "State", (row) => [PROCESS_STATES[row.state] ?? "none", row.state]),
      textColumn("pid", "PID", { numeric: true, text: (row) => String(row.pid || "–") }), numberColumn("cpu_ns", "CPU time", (n) => seconds(n === null ? null : n / 1e9)), numberColumn("rss_bytes", "Memory", bytes),
      numberColumn("uptime_s", "Up", seconds), numberColumn("restarts", "Restarts", count),
      numberColumn("deaths_young", "Young deaths", count, { help: "in a row, soon after their start: a crash loop" }),
    ],
  });
}

const perShard = (shards) => Object.entries(shards ?? {}).map(([shard, n]) => `${shard}: ${count(n)}`).join("  ") || "–";

function listenersTable() {
  return new Table({
    caption: "Listeners", id: "listeners", rowKey: (row) => row.name, empty: "No listeners.",
    columns: [
      linkColumn("name", "Listener", (row) => [row.name, hash("clients", { listener: row.name })]),
      textColumn("address", "Address", { text: (row) => `${row.address}:${row.port}` }),
      textColumn("protocol", "Protocol"), textColumn("tls", "TLS", { text: (row) => yes(row.tls) }), numberColumn("clients", "Clients", count),
      textColumn("shards", "Per shard", { value: null, text: (row) => perShard(row.shards) }),
      buttonsColumn([["Close its clients…", (row) => actions.closeClients({ listener: row.name })]]),
    ],
  });
}

function registersTable() {
  return new Table({
    caption: "Registers", id: "registers", rowKey: (row) => row.address, empty: "No registers.",
    columns: [
      textColumn("address", "Register"), pillColumn("connected", "State", (row) => (row.connected ? ["ok", "connected"] : ["bad", "not connected"])),
      numberColumn("since_s", "Since", seconds),
    ],
  });
}

export function create() {
  const shards = shardsTable(), processes = processesTable(), listeners = listenersTable(), registers = registersTable();
  const about = el("p", { class: "soft" });
  const root = el("div", {}, about,
    section("Shards", el("div", { class: "bar" }, button("Check the tables…", () => actions.check())), shards.root), section("Listeners", listeners.root),
    section("Registers", registers.root), section("Processes", processes.root));
  return {
    name: "node", title: "Node", root,
    status(status, samples) {
      const sample = samples.at(-1), missing = status.missing ?? [];
      setText(about, `tgg ${status.version}, configuration ${status.config}, supervisor ${status.supervisor_pid}, log level ${status.log_level}.`);
      shards.update(status.shards.map((row) => ({ ...row, cpu_percent: sample.cpu[row.shard] ?? null, missing: missing.includes(row.shard) })));
      processes.update(status.processes);
      listeners.update(status.listeners);
      registers.update(status.registers);
    },
  };
}
