// SPDX-License-Identifier: MIT
// A table that is updated in place: rows keep their elements, so focus, selection and scroll position stay while the
// figures change. On a phone each row is a card (style.css); roles say what is what then, too.

import { button, el, setText } from "./dom.js";

const isActions = (column) => column.key === "actions";

export class Table {
  /**
   * columns: [{key, title, help, value(row) (to sort by), text(row), numeric, wide, make(current) -> {node, update(row)}}];
   * text: what stands there; make: for cells with something else in them, current() is the row of now.
   * rowKey(row): what stays the same of a row. sort: key of the column, "-key" for descending.
   */
  constructor({ caption, columns, rowKey, empty = "Nothing.", sort = null, id = null }) {
    Object.assign(this, { columns, rowKey, sort, rows: [] });
    this.entries = new Map();
    this.body = el("tbody", { role: "rowgroup" });
    this.heads = columns.map((column) => this.head(column));
    this.table = el("table", { role: "table", id },
      el("caption", {}, caption),
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...this.heads)), this.body);
    this.empty = el("p", { class: "empty" }, empty);
    this.root = el("div", { class: "table", role: "region", "aria-label": caption, tabindex: "0" }, this.table, this.empty);
    this.showSort();
  }

  head(column) {
    const inside = column.value ? button(column.title, () => this.sortBy(column.key), { class: "sort" }) : column.title;
    return el("th", { scope: "col", role: "columnheader", title: column.help, class: column.numeric ? "number" : isActions(column) ? "actions" : null }, inside);
  }

  sortBy(key) {
    const column = this.columns.find((one) => one.key === key), descending = `-${key}`;
    if (this.sort === key) this.sort = descending;
    else if (this.sort === descending) this.sort = key;
    else this.sort = column.numeric ? descending : key;
    this.showSort();
    this.update(this.rows);
  }

  showSort() {
    this.columns.forEach((column, i) => {
      const state = this.sort === column.key ? "ascending" : this.sort === `-${column.key}` ? "descending" : null;
      if (state) this.heads[i].setAttribute("aria-sort", state);
      else this.heads[i].removeAttribute("aria-sort");
    });
  }

  sorted(rows) {
    if (!this.sort) return rows;
    const sign = this.sort.startsWith("-") ? -1 : 1, key = this.sort.replace(/^-/, "");
    const value = this.columns.find((column) => column.key === key).value;
    const compare = (a, b) => {
      const x = value(a), y = value(b);
      if (x === y) return 0;
      if (x === null || x === undefined) return 1;
      if (y === null || y === undefined) return -1;
      return sign * (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true }));
    };
    return [...rows].sort(compare);
  }

  update(rows) {
    this.rows = rows;
    const left = new Set(this.entries.keys());
    let next = this.body.firstElementChild;
    for (const row of this.sorted(rows)) {
      const key = this.rowKey(row);
      left.delete(key);
      const entry = this.entry(key, row);
      entry.row = row;
      entry.cells.forEach((cell) => cell.update(row));
      if (entry.tr === next) next = next.nextElementSibling;
      else this.body.insertBefore(entry.tr, next);
    }
    for (const key of left) {
      this.entries.get(key).tr.remove();
      this.entries.delete(key);
    }
    this.empty.hidden = rows.length > 0;
    this.table.hidden = rows.length === 0;
  }

  entry(key, row) {
    let entry = this.entries.get(key);
    if (!entry) {
      entry = { row };
      entry.cells = this.columns.map((column) => this.cell(column, entry));
      entry.tr = el("tr", { role: "row", "data-key": key }, ...entry.cells.map((cell) => cell.td));
      this.entries.set(key, entry);
    }
    return entry;
  }

  cell(column, entry) {
    const classes = [column.numeric ? "number" : null, column.wide ? "wide" : null, isActions(column) ? "actions" : null].filter(Boolean);
    const td = el("td", { role: "cell", "data-label": column.title, "data-column": column.key, class: classes.join(" ") || null });
    if (!column.make) {
      const span = td.appendChild(el("span"));
      return { td, update: (row) => setText(span, column.text(row)) };
    }
    const made = column.make(() => entry.row);
    td.append(made.node);
    return { td, update: made.update ?? (() => {}) };
  }
}

/** A column of figures: numberColumn("clients", "Clients", count) */
export const numberColumn = (key, title, format, more = {}) => ({
  key, title, numeric: true, value: (row) => row[key], text: (row) => format(row[key]), ...more,
});

export const textColumn = (key, title, more = {}) => ({
  key, title, value: (row) => row[key], text: (row) => (row[key] === null || row[key] === undefined || row[key] === "" ? "–" : String(row[key])), ...more,
});

/** A word with a colour beside it: pill(row => ["ok", "running"]), states are ok, wait, bad, none. */
export const pillColumn = (key, title, pill, more = {}) => ({
  key, title, value: (row) => pill(row)[1],
  make: () => {
    const text = el("span"), node = el("span", { class: "pill" }, el("i", { "aria-hidden": "true" }), text);
    return {
      node,
      update: (row) => {
        const [state, word] = pill(row);
        node.dataset.state = state;
        setText(text, word);
      },
    };
  },
  ...more,
});

/** A link: linkColumn("uid", "Uid", row => ["bob", "#clients?uid=bob"]), without an address it is text. */
export const linkColumn = (key, title, target, more = {}) => ({
  key, title, value: (row) => row[key],
  make: () => {
    const node = el("a");
    return {
      node,
      update: (row) => {
        const [text, href] = target(row);
        setText(node, text);
        if (!href) node.removeAttribute("href");
        else if (node.getAttribute("href") !== href) node.setAttribute("href", href);
      },
    };
  },
  ...more,
});

/** Buttons at the end of a row: [text, function(row), shown(row)]. */
export const buttonsColumn = (buttons, more = {}) => ({
  key: "actions", title: "",
  make: (current) => {
    const nodes = buttons.map(([text, act]) => button(text, () => act(current())));
    return {
      node: el("span", { class: "buttons" }, ...nodes),
      update: (row) => buttons.forEach(([, , shown], i) => { nodes[i].hidden = shown ? !shown(row) : false; }),
    };
  },
  ...more,
});

/** Buttons to go through pages of which only the cursor of the next one is known. load(cursor) -> cursor of the next. */
export class Pager {
  constructor(load) {
    this.load = load;
    this.previous = button("Page before", () => this.go(this.page - 1), { disabled: true });
    this.next = button("Next page", () => this.go(this.page + 1), { disabled: true });
    this.number = el("span", { class: "soft" });
    this.root = el("div", { class: "pager", hidden: true }, this.previous, this.number, this.next);
    this.clear();
  }

  clear() {
    this.cursors = [null]; // of each page that is known
    this.page = 0;
    this.show();
  }

  async go(page) {
    this.previous.disabled = this.next.disabled = true;
    const next = await this.load(this.cursors[page]);
    if (next !== undefined) { // undefined: it failed, or another question was asked meanwhile
      this.page = page;
      this.cursors.length = page + 1;
      if (next !== null && next !== "") this.cursors.push(next);
    }
    this.show();
  }

  show() {
    this.previous.disabled = this.page === 0;
    this.next.disabled = this.page + 1 >= this.cursors.length;
    this.root.hidden = this.previous.disabled && this.next.disabled;
    setText(this.number, `page ${this.page + 1}`);
  }
}
