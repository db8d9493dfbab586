// SPDX-License-Identifier: MIT
// Elements. Text of others (uids, groups, keys) only ever becomes a text node: there is no way here to make markup.

/** el("button", {class: "quiet", type: "button", onclick: f}, "Close", otherElement) */
export function el(name, props = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "value") node.value = value;
    else node.setAttribute(key, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Nothing is touched that is the same already: selections and screen readers stay undisturbed. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setState(node, state) {
  if (node.dataset.state !== state) node.dataset.state = state;
}

export const button = (text, onclick, props = {}) => el("button", { type: "button", class: "quiet", onclick, ...props }, text);

export const link = (text, href, props = {}) => el("a", { href, ...props }, text);

/** "#clients?uid=bob" */
export function hash(view, params = {}) {
  const query = new URLSearchParams(Object.entries(params).filter(([, value]) => value !== "" && value !== null && value !== undefined));
  return `${query}` === "" ? `#${view}` : `#${view}?${query}`;
}

/** A labelled input, select or checkbox of a form: {name, label, type, value, options, ...attributes of the input}. */
export function field({ name, label, type = "text", value = "", options, help, ...rest }) {
  let input;
  if (options) {
    input = el("select", { name, ...rest });
    for (const [key, text] of options) input.append(el("option", { value: key, selected: key === value }, text));
  } else {
    input = el("input", { name, type, value, autocomplete: "off", spellcheck: "false", ...rest });
  }
  return el("label", { title: help }, el("span", {}, label), input);
}

/** What stands in a form, by name; empty ones are left out. */
export function formValues(form) {
  const values = {};
  for (const [name, value] of new FormData(form)) if (value !== "") values[name] = value;
  return values;
}

/** A section with a heading. */
export function section(title, ...children) {
  return el("section", { class: "block", "aria-label": title }, el("h2", {}, title), ...children);
}

/** A line that says what is going on with a view's own questions; errors stand out. */
export class Note {
  constructor() {
    this.root = el("p", { class: "note", role: "status" });
  }

  say(text, isError = false) {
    setText(this.root, text);
    this.root.classList.toggle("error", isError);
  }

  error(error) {
    if (error.status !== -1) this.say(error.message, true);
  }

  /** What an answer has to say about shards that did not take part. */
  missing(body, text = "") {
    const shards = body?.missing ?? [];
    if (shards.length) this.say(`${text ? `${text} ` : ""}No answer of shard ${shards.join(", ")}: what it has is not in here.`, true);
    else this.say(text);
  }
}
