// SPDX-License-Identifier: MIT
// The web page of the admin port: asks for the status once a second while somebody looks, and shows one view.

import * as actions from "./actions.js";
import { get, hasToken, session, setToken } from "./api.js";
import { SPAN_MS } from "./charts.js";
import * as clients from "./clients.js";
import * as closes from "./closes.js";
import * as control from "./control.js";
import { el, link, setState, setText } from "./dom.js";
import { clock, count, seconds } from "./format.js";
import * as names from "./names.js";
import * as node from "./node.js";
import * as overview from "./overview.js";
import * as pools from "./pools.js";
import * as top from "./top.js";
import * as trace from "./trace.js";
import * as workers from "./workers.js";

const POLL_MS = 1000, STATUS_TIMEOUT_MS = 5000;
const $ = (id) => document.getElementById(id);

const app = {
  status: null, // the last answer
  samples: [], // of the last five minutes, oldest first
  at: null, // when that was
  failedSince: null, // since when there was no answer
  refresh: () => poll(),
};
actions.setup(app);

const views = [overview, node, workers, clients, names, top, trace, closes, pools, control].map((module) => module.create(app));
let view = null, timer = 0, asking = null, locked = false;

// ---- views

function makeNav() {
  for (const one of views) {
    one.link = link(one.title, `#${one.name}`);
    one.root.hidden = true;
    one.root.id = `view-${one.name}`;
    $("nav").append(el("li", {}, one.link));
    $("main").append(one.root);
  }
}

function route() {
  const [name, query] = location.hash.replace(/^#/, "").split("?", 2);
  if (name === "main") { // the link to the content
    $("main").focus();
    return;
  }
  const next = views.find((one) => one.name === name) ?? views[0], changed = next !== view;
  if (changed && view) {
    view.hide?.();
    view.root.hidden = true;
    view.link.removeAttribute("aria-current");
  }
  view = next;
  view.root.hidden = app.status === null; // nothing can be pressed before it is known what is there
  view.link.setAttribute("aria-current", "page");
  view.link.scrollIntoView({ block: "nearest", inline: "nearest" });
  document.title = `tgg: ${view.title}`;
  if (changed) scrollTo(0, 0);
  if (!app.status || locked) return; // show() comes with the first answer
  view.show?.(Object.fromEntries(new URLSearchParams(query ?? "")));
  view.status?.(app.status, app.samples);
}

// ---- the status

async function poll() {
  clearTimeout(timer);
  if (document.hidden || locked || asking) return;
  const began = performance.now();
  asking = new AbortController();
  try {
    const status = await get("api/status", {}, { timeoutMs: STATUS_TIMEOUT_MS, signal: asking.signal });
    take(status, (began + performance.now()) / 2);
  } catch (error) {
    if (error.status !== -1 && error.status !== 401) fail(error);
  }
  asking = null;
  if (!locked) timer = setTimeout(poll, Math.max(100, POLL_MS - (performance.now() - began)));
}

function take(status, t) {
  if (!Array.isArray(status.shards)) throw Object.assign(new Error("this is no answer of a gateway"), { status: 200 });
  const at = new Date(), first = app.status === null;
  app.samples.push(overview.makeSample(status, t, at, app.samples));
  while (app.samples[0].t < t - SPAN_MS - 2000) app.samples.shift();
  Object.assign(app, { status, at, failedSince: null });
  $("forget").hidden = !hasToken();
  document.body.classList.remove("stale");
  banner();
  if (first) route();
  else view.status?.(status, app.samples);
}

function fail(error) {
  app.failedSince ??= new Date();
  document.body.classList.add("stale");
  showBanner("bad", `No answer since ${clock(app.failedSince)}: ${error.message}.`, app.at ? `What you see is of ${clock(app.at)}. Asking again.` : "Asking again.");
  showState("bad", "no answer");
}

// ---- what is said at the top

function showState(state, text) {
  setState($("state"), state);
  setText($("state").querySelector("span"), text);
}

function showBanner(state, what, more) {
  setState($("banner"), state);
  setText($("banner-what"), what);
  setText($("banner-more"), more);
}

function banner() {
  const { status } = app, missing = status.missing ?? [], drained = status.shards.filter((shard) => shard.drained).map((shard) => shard.shard);
  const why = (status.not_ready ?? []).join("; ");
  const more = [`up ${seconds(status.uptime_s)}`, `${count(status.shards.length)} shard${status.shards.length === 1 ? "" : "s"}`];
  if (drained.length) more.push(drained.length === status.shards.length ? "drained: takes no new clients" : `drained: shard ${drained.join(", ")}`);
  if (missing.length) more.push(`no answer of shard ${missing.join(", ")}: figures without it`);
  const state = !status.running ? "bad" : !status.ready ? "bad" : missing.length || drained.length ? "wait" : "ok";
  const what = !status.running ? `Not running: ${status.state}` : status.ready ? "Ready" : `Not ready${why ? `: ${why}` : ""}`;
  showBanner(state, what, more.join(" · "));
  showState(status.running ? (status.ready ? "ok" : "wait") : "bad", status.state);
}

// ---- the token

session.addEventListener("unauthorized", (event) => {
  if (locked) return;
  locked = true;
  setToken("");
  clearTimeout(timer);
  view?.hide?.();
  clients.closePanel();
  $("login-error").textContent = event.detail.refused ? "That token is not taken." : "";
  showState("wait", "a token is needed");
  showBanner("wait", "A token is needed.", "");
  setLocked(true);
  $("token").value = "";
  $("token").focus();
});

function setLocked(on) {
  $("login").hidden = !on;
  $("main").hidden = on;
  document.querySelector("nav").hidden = on;
  if (on) $("forget").hidden = true;
}

$("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  setToken($("token").value.trim());
  $("token").value = "";
  locked = false;
  app.status = null; // the view begins anew with the first answer
  route();
  setLocked(false);
  await poll();
  if (!locked) $("main").focus({ preventScroll: true });
});

$("forget").addEventListener("click", () => {
  setToken("");
  location.reload();
});

// ---- start

makeNav();
addEventListener("hashchange", route);
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : poll()));
route();
poll();
