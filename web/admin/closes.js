// SPDX-License-Identifier: MIT
// Why clients were closed and messages dropped.

import { get } from "./api.js";
import { Note, el, section } from "./dom.js";
import { count, percent, rate } from "./format.js";
import { Table, numberColumn, textColumn } from "./tables.js";

function tableOf(caption, id, empty) {
  return new Table({
    caption, id, empty, rowKey: (row) => row.reason, sort: "-count",
    columns: [
      textColumn("reason", "Reason"), numberColumn("count", "Count", count), numberColumn("rate", "/s", rate), numberColumn("share", "Share", percent),
      textColumn("help", "What it is", { wide: true, value: null }),
    ],
  });
}

export function create() {
  const closes = tableOf("Close reasons", "closes", "No reasons."), drops = tableOf("Dropped messages", "drops", "No reasons."), note = new Note();
  let asked = null, before = new Map();

  function rows(kind, list, t, now) {
    const all = list.reduce((sum, row) => sum + row.count, 0);
    return list.map((row) => {
      const key = `${kind} ${row.reason}`, old = before.get(key);
      now.set(key, { t, count: row.count });
      const grown = old && t > old.t && row.count >= old.count ? ((row.count - old.count) * 1000) / (t - old.t) : null;
      return { ...row, rate: grown, share: all ? (100 * row.count) / all : null };
    });
  }

  async function poll() {
    if (asked) return;
    asked = new AbortController();
    try {
      const body = await get("api/closes", {}, { signal: asked.signal }), t = performance.now(), now = new Map();
      closes.update(rows("close", body.closes, t, now));
      drops.update(rows("drop", body.drops, t, now));
      before = now;
      note.missing(body);
    } catch (error) {
      note.error(error);
    }
    asked = null;
  }

  return {
    name: "closes", title: "Closes, drops",
    root: el("div", {}, note.root, section("Close reasons", closes.root), section("Dropped messages", drops.root)),
    hide() { asked?.abort(); },
    status: poll,
  };
}
