// SPDX-License-Identifier: MIT
// Actions that concern the whole gateway, bans, and what was done from this page.

import * as actions from "./actions.js";
import { get } from "./api.js";
import { Note, button, el, field, formValues, section } from "./dom.js";
import { day } from "./format.js";
import { Table, buttonsColumn, textColumn } from "./tables.js";

const LEVELS = ["error", "warn", "notice", "info", "debug"];

const what = (title, text, ...inside) => el("div", { class: "action" }, el("h3", {}, title), el("p", {}, text), ...inside);

export function create(app) {
  const level = field({ name: "level", label: "Level", options: LEVELS.map((one) => [one, one]), value: "notice" });
  const bans = new Table({
    caption: "Bans", id: "bans", rowKey: (row) => row.address, empty: "Nobody is banned.",
    columns: [
      textColumn("address", "Address"),
      { key: "until", title: "Until", value: (row) => row.until_unix_s, text: (row) => day(new Date(row.until_unix_s * 1000)) },
      { key: "left", title: "Left", value: (row) => row.until_unix_s, text: (row) => actions.until(row.until_unix_s) },
      buttonsColumn([["Unban…", async (row) => { await actions.unban(row.address); loadBans(); }]]),
    ],
  });
  const note = new Note(), done = el("ol", { class: "done", id: "done" }), none = el("p", { class: "empty" }, "Nothing yet.");
  const banForm = el("form", { class: "inline", id: "ban-form" }, field({ name: "address", label: "Address or CIDR", required: true, placeholder: "192.0.2.0/24" }), el("button", {}, "Ban…"));

  async function loadBans() {
    try {
      bans.update((await get("api/bans")).bans);
      note.say("");
    } catch (error) {
      note.error(error);
    }
  }

  banForm.addEventListener("submit", async (event) => {
    event.preventDefault();
    await actions.ban(formValues(banForm).address.trim());
    loadBans();
  });

  actions.results.addEventListener("result", () => {
    none.hidden = true;
    done.replaceChildren(...actions.results.list.map((result) => el("li", { "data-state": result.state }, el("time", {}, actions.resultTime(result)), ...actions.resultNodes(result))));
  });

  let levelSet = false;
  const root = el("div", {},
    section("Actions", el("div", { class: "actions-grid" },
      what("Drain the node", "No new clients; those that are there are closed over a time.", el("div", { class: "bar" },
        button("Drain the node…", () => actions.drain("node", "yes")), button("Undrain the node…", () => actions.undrain("node", "yes")))),
      what("Configuration", "Read it again. A wrong file changes nothing and says why.", el("div", { class: "bar" }, button("Reload…", () => actions.reload()))),
      what("Workers", "Bind clients evenly over the workers.", el("div", { class: "bar" }, button("Rebalance…", () => actions.rebalance()))),
      what("Log level", "Of all processes, until the next reload or start.", el("div", { class: "bar" }, level, button("Change…", () => actions.logLevel(level.querySelector("select").value)))),
      what("Consistency", "Compare the tables of the shards with each other.", el("div", { class: "bar" }, button("Check…", () => actions.check()))),
      what("Clients", "Close every client of this gateway.", el("div", { class: "bar" }, button("Close all clients…", () => actions.closeClients({ all: "yes" })))))),
    section("Bans", note.root, banForm, bans.root),
    section("Done from this page", none, done));
  return {
    name: "control", title: "Control", root,
    show() {
      loadBans();
      if (app.status && !levelSet) {
        levelSet = true;
        level.querySelector("select").value = app.status.log_level;
      }
    },
  };
}
