// SPDX-License-Identifier: MIT
// Tables and pools with their peaks, so that a leak shows; and every counter.

import { get } from "./api.js";
import { Note, el, field, section } from "./dom.js";
import { bytes, count, rate } from "./format.js";
import { Table, numberColumn, textColumn } from "./tables.js";

const POLL_MS = 2000;

function fill() {
  const node = el("progress", { max: 1, value: 0 });
  return {
    node,
    update: (row) => {
      const known = typeof row.used === "number" && row.capacity > 0;
      node.hidden = !known;
      if (!known) return;
      node.value = row.used / row.capacity;
      node.setAttribute("aria-label", `${Math.round(100 * node.value)} % of its capacity`);
    },
  };
}

const poolsTable = () => new Table({
  caption: "Tables and pools", id: "pools", rowKey: (row) => `${row.shard} ${row.name}`, empty: "Nothing of that name.",
  columns: [
    textColumn("name", "Name"), numberColumn("shard", "Shard", count), numberColumn("used", "Used", count), numberColumn("peak", "Peak", count),
    numberColumn("capacity", "Capacity", count), { key: "fill", title: "Full", value: (row) => (row.capacity ? row.used / row.capacity : null), make: fill },
    numberColumn("bytes", "Memory", bytes),
  ],
});

const countersTable = () => new Table({
  caption: "Counters", id: "counters", rowKey: (row) => row.name, empty: "Nothing of that name.",
  columns: [textColumn("name", "Name"), textColumn("kind", "Kind"), numberColumn("value", "Value", count), numberColumn("rate", "/s", rate), textColumn("help", "What it is", { wide: true, value: null })],
});

export function create() {
  const pools = poolsTable(), counters = countersTable(), note = new Note();
  const poolFilter = field({ name: "pool", label: "Name contains", type: "search" }), counterFilter = field({ name: "counter", label: "Name contains", type: "search" });
  const wanted = (label, name) => name.includes(label.querySelector("input").value.trim().toLowerCase());
  let asked = null, last = 0, rows = [], names = null, before = null, figures = [];

  const showPools = () => pools.update(rows.filter((row) => wanted(poolFilter, row.name.toLowerCase())));
  const showCounters = () => counters.update(figures.filter((row) => wanted(counterFilter, row.name)));
  poolFilter.addEventListener("input", showPools);
  counterFilter.addEventListener("input", showCounters);

  async function poll() {
    if (asked || performance.now() - last < POLL_MS - 100) return;
    asked = new AbortController();
    last = performance.now();
    try {
      names ??= (await get("api/names", {}, { signal: asked.signal })).counters;
      const body = await get("api/tables", {}, { signal: asked.signal });
      rows = body.tables;
      showPools();
      note.missing(body);
    } catch (error) {
      note.error(error);
    }
    asked = null;
  }

  function learn(values) {
    const t = performance.now(), dt = before ? (t - before.t) / 1000 : 0;
    const known = new Map((names ?? []).map((one) => [one.name, one]));
    figures = Object.entries(values).map(([name, value]) => {
      const { kind = null, help = null } = known.get(name) ?? {};
      const grown = kind !== "gauge" && dt > 0 && value >= before.values[name] ? (value - before.values[name]) / dt : null;
      return { name, kind, help, value, rate: grown };
    });
    before = { t, values };
    showCounters();
  }

  return {
    name: "pools", title: "Tables, counters",
    root: el("div", {}, note.root, section("Tables and pools", el("div", { class: "inline" }, poolFilter), pools.root),
      section("Counters", el("div", { class: "inline" }, counterFilter), counters.root)),
    show() { last = 0; },
    hide() { asked?.abort(); },
    status(status) {
      learn(status.counters);
      poll();
    },
  };
}
