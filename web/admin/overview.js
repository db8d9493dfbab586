// SPDX-License-Identifier: MIT
// Figures and charts of the whole gateway. Samples come from app.js, one a second while the page is looked at.

import { get } from "./api.js";
import { TimeChart, drawBars } from "./charts.js";
import { Note, el, section, setText } from "./dom.js";
import { bytes, count, inUnit, percent, rate, short } from "./format.js";
import { Table, textColumn } from "./tables.js";

const CPU_LINES_MAX = 6, HISTOGRAM_POLL_MS = 2000, RECENT_MS = 60000;

/** Sums of counters whose names begin alike. */
const SUMS = { closes: "client_closed_", drops: "dropped_" };
const RATES = [
  "client_messages_in", "link_packets_in", "client_messages_out", "client_message_bytes_in", "client_message_bytes_out", "client_refused",
];
const GAUGES = ["clients", "links", "client_queue_bytes", "links_queue_bytes", "mesh_backlog_bytes", "parked_bytes"];
const CPU_WINDOW_MS = 3500; // cpu_ns moves once a second: over less time it would jump between 0 and 200 %

/** What charts and figures need of a status; earlier: samples so far, oldest first. */
export function makeSample(status, t, at, earlier) {
  const totals = {}, gauges = {}, rates = {}, counters = status.counters ?? {};
  for (const name of RATES) totals[name] = counters[name] ?? null;
  for (const [name, prefix] of Object.entries(SUMS)) totals[name] = sumOf(counters, prefix);
  for (const name of GAUGES) gauges[name] = counters[name] ?? null;
  gauges.clients = status.clients_n ?? gauges.clients;
  const before = earlier.at(-1), dt = before ? (t - before.t) / 1000 : 0;
  for (const name of Object.keys(totals)) rates[name] = before && dt < 4 ? perSecond(totals[name], before.totals[name], dt) : null;
  const cpu_ns = Object.fromEntries((status.shards ?? []).map((shard) => [shard.shard, shard.pid ? shard.cpu_ns : null]));
  return { t, at, totals, gauges, rates, cpu_ns, cpu: cpuOf(cpu_ns, t, earlier) };
}

function sumOf(counters, prefix) {
  let sum = 0;
  for (const name in counters) if (name.startsWith(prefix)) sum += counters[name];
  return sum;
}

// A counter that went back is one of a new start: nothing is known of the time in between.
function perSecond(now, before, dt) {
  return typeof now === "number" && typeof before === "number" && now >= before && dt > 0 ? (now - before) / dt : null;
}

function cpuOf(cpu_ns, t, earlier) {
  const first = earlier.find((sample) => t - sample.t <= CPU_WINDOW_MS), cpu = {};
  for (const shard in cpu_ns) {
    const part = first ? perSecond(cpu_ns[shard], first.cpu_ns[shard], (t - first.t) / 1000) : null;
    cpu[shard] = part === null ? null : part / 1e7;
  }
  return cpu;
}

const TILES = [
  ["clients", "Clients", "client connections open", (s) => count(s.clients_n)],
  ["workers", "Workers", "workers connected", (s) => count(s.workers_n)],
  ["client_messages_in", "Messages in /s", "messages from clients", rate, short],
  ["link_packets_in", "Messages out /s", "packets from workers: sends, whatever the number of receivers", rate, short],
  ["client_messages_out", "Deliveries /s", "messages queued to clients, one per receiver", rate, short],
  ["client_message_bytes_in", "Bytes in /s", "payload of messages from clients", bytes, bytes],
  ["client_message_bytes_out", "Bytes out /s", "framed bytes queued to clients", bytes, bytes],
  ["client_refused", "Refused /s", "connections refused by a list, at a limit or without memory", rate, short],
  ["drops", "Dropped /s", "messages dropped, whatever the reason", rate, short],
  ["closes", "Closes /s", "client connections ended, whatever the reason", rate, short],
];

class Tiles {
  constructor() {
    this.values = TILES.map(([name]) => el("dd", { id: `tile-${name}` }));
    this.totals = TILES.map(() => el("dd", { class: "total" }));
    this.root = el("dl", { class: "tiles" }, ...TILES.map(([, title, help], i) => el("div", { title: help }, el("dt", {}, title), this.values[i], this.totals[i])));
  }

  update(status, samples) {
    const recent = samples.slice(-3);
    TILES.forEach(([name, , , format, formatTotal], i) => {
      if (!formatTotal) {
        setText(this.values[i], format(status));
        return;
      }
      const known = recent.map((sample) => sample.rates[name]).filter((n) => n !== null);
      setText(this.values[i], format(known.length ? known.reduce((a, b) => a + b) / known.length : null));
      setText(this.totals[i], `${formatTotal(samples.at(-1).totals[name])} in all`);
    });
  }
}

const rateLine = (name, of) => ({ name, value: (sample) => sample.rates[of] });
const gaugeLine = (name, of) => ({ name, value: (sample) => sample.gauges[of] });

function makeCharts() {
  return {
    connections: new TimeChart({ title: "Connections", format: short, series: [gaugeLine("clients", "clients"), gaugeLine("internal", "links")] }),
    messages: new TimeChart({ title: "Messages per second", format: rate, series: [rateLine("in, from clients", "client_messages_in"), rateLine("out, from workers", "link_packets_in")] }),
    deliveries: new TimeChart({ title: "Deliveries per second", format: rate, series: [rateLine("to clients", "client_messages_out")] }),
    cpu: new TimeChart({ title: "CPU per shard", format: percent, floor: 10, series: [] }),
    queues: new TimeChart({
      title: "Queues", format: bytes, binary: true,
      series: [gaugeLine("to clients", "client_queue_bytes"), gaugeLine("to workers", "links_queue_bytes"), gaugeLine("between shards", "mesh_backlog_bytes"), gaugeLine("waiting for a worker", "parked_bytes")],
    }),
    drops: new TimeChart({ title: "Drops, refusals, closes per second", format: rate, series: [rateLine("messages dropped", "drops"), rateLine("connections refused", "client_refused"), rateLine("clients closed", "closes")] }),
  };
}

/** A line for each shard, or for many shards the highest and the mean. */
function cpuLines(shards) {
  if (shards.length <= CPU_LINES_MAX) return shards.map((shard) => ({ name: `shard ${shard}`, value: (sample) => sample.cpu[shard] ?? null }));
  const known = (sample) => Object.values(sample.cpu).filter((n) => n !== null);
  return [
    { name: "busiest shard", value: (sample) => (known(sample).length ? Math.max(...known(sample)) : null) },
    { name: `mean of ${shards.length} shards`, value: (sample) => (known(sample).length ? known(sample).reduce((a, b) => a + b) / known(sample).length : null) },
  ];
}

/** Part of the observations that is below a bucket's bound; what the gateway computes for all time, for the last minute. */
function quantile(counts, bounds, part) {
  const all = counts.reduce((a, b) => a + b, 0);
  let sum = 0;
  for (let i = 0; i < counts.length; i++) {
    sum += counts[i];
    if (all > 0 && sum >= all * part) return bounds[i];
  }
  return null;
}

class Histograms {
  constructor() {
    this.earlier = []; // of the last minute: {t, buckets: {name: [counts]}}
    this.note = new Note();
    const value = (key, title, help) => ({ key, title, help, numeric: true, value: (row) => row[key], text: (row) => inUnit(row.unit)(row.count ? row[key] : null) });
    this.table = new Table({
      caption: "Histograms", id: "histograms", rowKey: (row) => row.name, empty: "No histograms yet.",
      columns: [
        textColumn("title", "What", { text: (row) => row.title }),
        value("p50_now", "p50, last minute", "half were faster or smaller"),
        value("p99_now", "p99, last minute", "99 of 100 were faster or smaller"),
        value("p50", "p50"), value("p90", "p90"), value("p99", "p99"),
        value("max_bound", "Largest", "bound of the highest bucket that is not empty"),
        { key: "count", title: "Count", numeric: true, value: (row) => row.count, text: (row) => count(row.count) },
        { key: "shape", title: "Shape, last minute", make: bars },
      ],
    });
    this.root = section("Histograms", el("p", { class: "soft" }, "Bounds of buckets that double in width; since the start of the shards, and of the last minute."), this.note.root, this.table.root);
  }

  async poll(signal) {
    try {
      const body = await get("api/histograms", {}, { signal });
      this.update(body.histograms);
      this.note.missing(body);
    } catch (error) {
      this.note.error(error);
    }
  }

  update(histograms) {
    const t = performance.now(), buckets = {};
    const rows = Object.entries(histograms).map(([name, one]) => {
      const bounds = one.buckets.map(([bound]) => bound), counts = one.buckets.map(([, n]) => n);
      buckets[name] = Object.fromEntries(one.buckets);
      const then = this.earlier.find((old) => t - old.t <= RECENT_MS)?.buckets[name];
      const recent = then ? counts.map((n, i) => Math.max(0, n - (then[bounds[i]] ?? 0))) : counts.map(() => 0);
      return {
        ...one, name, title: TITLES[name] ?? name.replaceAll("_", " "), recent,
        p50_now: quantile(recent, bounds, 0.5), p99_now: quantile(recent, bounds, 0.99),
      };
    });
    this.earlier.push({ t, buckets });
    while (this.earlier[0].t < t - RECENT_MS) this.earlier.shift();
    this.table.update(rows);
  }
}

const TITLES = {
  turn: "Turn of the loop", worker_queue: "Wait in a worker's queue", fanout: "Fan-out", handshake: "Handshake", tls_handshake: "TLS handshake",
  message_in: "Message in", message_out: "Message out",
};

function bars() {
  const canvas = el("canvas", { class: "bars", "aria-hidden": "true" });
  return { node: canvas, update: (row) => drawBars(canvas, row.recent) };
}

export function create() {
  const tiles = new Tiles(), charts = makeCharts(), histograms = new Histograms();
  let shards = "", asked = null, last = 0;
  const root = el("div", {}, el("section", { "aria-label": "Figures" }, tiles.root),
    el("section", { class: "charts", "aria-label": "Charts of the last five minutes" }, ...Object.values(charts).map((chart) => chart.root)), histograms.root);
  return {
    name: "overview", title: "Overview", root,
    hide() { asked?.abort(); },
    status(status, samples) {
      const numbers = status.shards.map((shard) => shard.shard);
      if (numbers.join() !== shards) {
        shards = numbers.join();
        charts.cpu.setSeries(cpuLines(numbers));
      }
      tiles.update(status, samples);
      for (const chart of Object.values(charts)) chart.update(samples);
      if (performance.now() - last >= HISTOGRAM_POLL_MS - 100) {
        last = performance.now();
        asked = new AbortController();
        histograms.poll(asked.signal);
      }
    },
  };
}
