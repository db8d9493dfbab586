// SPDX-License-Identifier: MIT
// Uids and groups with their clients, by name or beginning of it.

import * as actions from "./actions.js";
import { get } from "./api.js";
import { Note, el, field, formValues, hash, section } from "./dom.js";
import { count, many } from "./format.js";
import { Pager, Table, buttonsColumn, linkColumn, numberColumn } from "./tables.js";

const KINDS = { uids: { filter: "uid", title: "Uid" }, groups: { filter: "group", title: "Group" } };

export function create() {
  const form = el("form", { class: "search", id: "name-search" },
    field({ name: "kind", label: "What", options: [["uids", "uids"], ["groups", "groups"]] }),
    field({ name: "name", label: "Name, exactly" }), field({ name: "prefix", label: "Begins with" }),
    field({ name: "limit", label: "On a page", options: [["20", "20"], ["100", "100"], ["200", "200"]], value: "100" }),
    el("div", { class: "bar" }, el("button", {}, "Search")));
  const note = new Note(), pager = new Pager((cursor) => load(cursor));
  const whole = (row) => actions.isWhole(row.name);
  const table = new Table({
    caption: "Uids and groups", id: "names", rowKey: (row) => `${row.shard ?? ""} ${row.kind} ${row.name}`, empty: "No such name.",
    columns: [
      linkColumn("name", "Name", (row) => [row.name, whole(row) ? hash("clients", { [KINDS[row.kind].filter]: row.name }) : null], { wide: true }),
      numberColumn("clients", "Clients", count), { key: "shard", title: "Shard", numeric: true, value: (row) => row.shard, text: (row) => (row.shard === undefined || row.shard === null ? "all" : String(row.shard)) },
      buttonsColumn([
        ["Kick…", (row) => actions.kick(row.name), (row) => row.kind === "uids" && whole(row)],
        ["Close its clients…", (row) => actions.closeClients({ group: row.name }), (row) => row.kind === "groups" && whole(row)],
      ]),
    ],
  });
  let asked = null;

  async function load(cursor) {
    asked?.abort();
    const mine = asked = new AbortController(), { kind, ...values } = formValues(form);
    note.say("Asking…");
    try {
      const body = await get(`api/${kind}`, { ...values, cursor }, { signal: mine.signal });
      table.update(body[kind].map((row) => ({ ...row, kind })));
      note.missing(body, `${many(body[kind].length, "row")}${body.cursor || cursor ? " on this page" : ""}. A name with clients in several shards has a row for each, unless it is asked for exactly.`);
      return body.cursor ?? null;
    } catch (error) {
      note.error(error);
      return undefined;
    }
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    pager.clear();
    pager.go(0);
  });

  return {
    name: "names", title: "Uids, groups",
    root: section("Uids and groups", form, note.root, table.root, pager.root),
    show() {
      pager.clear();
      pager.go(0);
    },
    hide() { asked?.abort(); },
  };
}
