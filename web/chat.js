// SPDX-License-Identifier: MIT
// The page of tgg-demo-chat. Text from others is only ever put in place as text, never as markup.
"use strict";

const $ = (id) => document.getElementById(id);
const RETRY_FIRST_MS = 500, RETRY_MAX_MS = 10000, PING_MS = 25000, LOG_MAX = 500;

const state = {
  url: "", socket: null, retryMs: RETRY_FIRST_MS, pingTimer: 0,
  wanted: null, // {name, room} to log in with, again after each reconnect
  id: "", room: "", members: new Map(), target: "",
};

// ?ws=URL, else the port of config.json, else this host's port 8282.
async function findUrl() {
  const given = new URLSearchParams(location.search).get("ws");
  if (given) return given;
  let port = 8282;
  try {
    const config = await (await fetch("config.json", { cache: "no-store" })).json();
    if (Number.isInteger(config.websocket_port)) port = config.websocket_port;
  } catch { /* the page may be opened as a file, or served without config.json */ }
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  return `${scheme}://${location.hostname || "127.0.0.1"}:${port}/`;
}

function setStatus(name, text) {
  $("status").dataset.state = name;
  $("status").querySelector("span").textContent = text;
}

function send(message) {
  if (state.socket?.readyState !== WebSocket.OPEN) return false;
  state.socket.send(JSON.stringify(message));
  return true;
}

function connect() {
  setStatus("connecting", "connecting…");
  let socket;
  try {
    socket = new WebSocket(state.url);
  } catch {
    setStatus("closed", "bad address");
    return;
  }
  state.socket = socket;
  socket.onopen = () => {
    state.retryMs = RETRY_FIRST_MS;
    setStatus("open", "online");
    clearInterval(state.pingTimer);
    state.pingTimer = setInterval(() => send({ type: "ping" }), PING_MS);
    if (state.wanted) send({ type: "login", ...state.wanted });
  };
  socket.onmessage = (event) => receive(event.data);
  socket.onclose = () => {
    clearInterval(state.pingTimer);
    if (state.id) notice("connection lost");
    state.id = "";
    state.members.clear();
    setTarget("");
    drawMembers();
    setStatus("closed", `offline, again in ${Math.round(state.retryMs / 100) / 10} s`);
    setTimeout(connect, state.retryMs * (0.8 + 0.4 * Math.random()));
    state.retryMs = Math.min(state.retryMs * 2, RETRY_MAX_MS);
  };
}

const handlers = {
  welcome(m) {
    const rejoined = m.room === state.room;
    state.id = m.id;
    state.room = m.room;
    state.members = new Map([[m.id, m.name]]);
    if (!rejoined) $("log").replaceChildren();
    $("login").hidden = true;
    $("chat").hidden = false;
    $("room-title").textContent = m.room;
    notice(rejoined ? "back again" : `you are in ${m.room} as ${m.name}`);
    drawMembers();
    $("text").focus();
  },
  members(m) {
    if (m.room !== state.room || !Array.isArray(m.members)) return;
    for (const one of m.members) state.members.set(one.id, one.name);
    drawMembers();
  },
  joined(m) {
    if (!state.id) return;
    state.members.set(m.id, m.name);
    notice(`${m.name} joined`);
    drawMembers();
  },
  left(m) {
    if (!state.members.delete(m.id)) return;
    notice(`${m.name} left`);
    if (state.target === m.id) setTarget("");
    drawMembers();
  },
  say(m) { showMessage(m); },
  error(m) {
    if (state.id) notice(`error: ${m.text}`);
    else $("login-error").textContent = m.text;
  },
  ping() { send({ type: "pong" }); },
};

function receive(data) {
  let message;
  try { message = JSON.parse(data); } catch { return; }
  if (message && Object.hasOwn(handlers, message.type)) handlers[message.type](message);
}

function append(item) {
  const log = $("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  log.append(item);
  while (log.childElementCount > LOG_MAX) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function notice(text) {
  const item = document.createElement("li");
  item.className = "notice";
  item.textContent = text;
  append(item);
}

function showMessage(m) {
  const item = document.createElement("li");
  const head = document.createElement("small");
  const mine = m.from === state.id;
  const time = new Date(m.time * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  const to = m.private ? ` → ${m.to === state.id ? "you" : state.members.get(m.to) ?? "one"} (private)` : "";
  item.classList.toggle("mine", mine);
  item.classList.toggle("private", m.private === true);
  head.textContent = `${mine ? "you" : m.name}${to} · ${time}`;
  item.append(head, String(m.text));
  append(item);
}

function setTarget(id) {
  state.target = id;
  $("target").hidden = !id;
  $("target").textContent = id ? `to ${state.members.get(id)} ×` : "";
  $("text").placeholder = id ? "Private message" : "Message to the room";
}

function drawMembers() {
  const items = [...state.members].sort((a, b) => a[1].localeCompare(b[1])).map(([id, name]) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = id === state.id ? `${name} (you)` : name;
    button.disabled = id === state.id;
    button.title = "Private message";
    button.setAttribute("aria-pressed", String(id === state.target));
    button.onclick = () => { setTarget(state.target === id ? "" : id); drawMembers(); $("text").focus(); };
    item.append(button);
    return item;
  });
  $("members").replaceChildren(...items);
  $("count").textContent = state.members.size;
}

$("login-form").onsubmit = (event) => {
  event.preventDefault();
  state.wanted = { name: $("name").value.trim(), room: $("room").value.trim() };
  $("login-error").textContent = send({ type: "login", ...state.wanted }) ? "" : "Not connected yet; joining as soon as it is.";
  try { sessionStorage.setItem("tgg-name", state.wanted.name); } catch { /* storage may be forbidden */ }
};

$("say-form").onsubmit = (event) => {
  event.preventDefault();
  const text = $("text").value;
  if (!text.trim()) return;
  const message = state.target ? { type: "say", text, to: state.target } : { type: "say", text };
  if (send(message)) $("text").value = "";
};

$("target").onclick = () => { setTarget(""); drawMembers(); $("text").focus(); };

$("leave").onclick = () => {
  state.wanted = null;
  state.room = "";
  state.id = "";
  $("chat").hidden = true;
  $("login").hidden = false;
  $("room-title").textContent = "";
  state.socket?.close();
};

async function start() {
  const room = new URLSearchParams(location.search).get("room");
  if (room) $("room").value = room;
  try { $("name").value = sessionStorage.getItem("tgg-name") ?? ""; } catch { /* as above */ }
  if (!$("name").value) $("name").value = `guest${Math.floor(Math.random() * 900 + 100)}`;
  state.url = await findUrl();
  connect();
}

start();
