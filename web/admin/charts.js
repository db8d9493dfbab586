// SPDX-License-Identifier: MIT
// Lines over the last minutes on a canvas. A legend says name and value of each line, so that colour alone carries
// nothing; the pointer or the arrow keys read earlier values.

import { el, setText } from "./dom.js";
import { clock } from "./format.js";

export const SPAN_MS = 5 * 60 * 1000;
const GAP_MS = 3500; // between two samples: nothing is known of the time in between, the line is broken
const LEFT = 54, RIGHT = 8, TOP = 8, BOTTOM = 18;

/** The smallest of 1, 2, 5 times a power of ten (of two for bytes) that is not below n. */
export function niceMax(n, binary) {
  if (!(n > 0)) return binary ? 1024 : 1;
  if (binary) return 2 ** Math.ceil(Math.log2(Math.max(n, 1024)));
  const power = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 5, 10].map((k) => k * power).find((top) => top >= n * 0.9999);
}

export class TimeChart {
  /** series: [{name, value(sample)}], value null: not known. all: samples, oldest first, each {at (Date), t (ms)}. */
  constructor({ title, series, format, binary = false, floor = 1 }) {
    Object.assign(this, { title, format, binary, floor });
    this.samples = [];
    this.cursor = null; // t of the sample that is read, null: the last
    this.canvas = el("canvas", { role: "img", tabindex: "0", "aria-label": title });
    this.when = el("span", { class: "when" });
    this.legend = el("ul", { class: "legend" });
    this.root = el("figure", { class: "chart" }, el("figcaption", {}, el("h3", {}, title), this.when), this.canvas, this.legend);
    this.setSeries(series);
    this.canvas.addEventListener("pointermove", (event) => this.point(event.offsetX));
    this.canvas.addEventListener("pointerdown", (event) => this.point(event.offsetX));
    this.canvas.addEventListener("pointerleave", () => this.read(null));
    this.canvas.addEventListener("blur", () => this.read(null));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    document.addEventListener("themechange", () => this.draw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  setSeries(series) {
    this.series = series;
    this.values = series.map(() => el("b"));
    this.legend.replaceChildren(
      ...series.map((one, i) => el("li", {}, el("i", { class: `s${i}`, "aria-hidden": "true" }), el("span", {}, one.name), this.values[i])),
    );
  }

  update(samples) {
    this.samples = samples;
    this.draw();
  }

  read(t) {
    if (t === this.cursor) return;
    this.cursor = t;
    this.draw();
  }

  point(x) {
    const width = this.canvas.clientWidth - LEFT - RIGHT, last = this.samples.at(-1);
    if (!last || width <= 0) return;
    const t = last.t - SPAN_MS * (1 - (x - LEFT) / width);
    const nearest = this.samples.reduce((a, b) => (Math.abs(b.t - t) < Math.abs(a.t - t) ? b : a));
    this.read(nearest.t);
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (!step || !this.samples.length) return;
    event.preventDefault();
    const last = this.samples.length - 1;
    const at = this.cursor === null ? last : this.samples.findIndex((sample) => sample.t === this.cursor);
    this.read(this.samples[Math.min(Math.max(at + step, 0), last)].t);
  }

  draw() {
    const { canvas, samples } = this;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width || !height) return;
    const scale = devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    const css = getComputedStyle(canvas), g = canvas.getContext("2d");
    g.setTransform(scale, 0, 0, scale, 0, 0);
    g.clearRect(0, 0, width, height);
    const end = samples.at(-1)?.t ?? 0, from = end - SPAN_MS;
    const seen = samples.filter((sample) => sample.t >= from);
    const lines = this.series.map((one) => seen.map((sample) => one.value(sample)));
    const top = niceMax(Math.max(this.floor, ...lines.flat().filter((n) => n !== null)), this.binary);
    const x = (t) => LEFT + ((t - from) / SPAN_MS) * (width - LEFT - RIGHT);
    const y = (n) => TOP + (1 - n / top) * (height - TOP - BOTTOM);
    this.grid(g, css, width, height, top, y);
    lines.forEach((values, i) => {
      g.strokeStyle = css.getPropertyValue(`--s${i}`);
      g.fillStyle = g.strokeStyle;
      this.line(g, seen, values, x, y);
    });
    const read = this.cursor === null ? seen.at(-1) : seen.find((sample) => sample.t === this.cursor) ?? seen.at(-1);
    if (read && this.cursor !== null) {
      g.fillStyle = css.getPropertyValue("--soft");
      g.fillRect(x(read.t) - 0.5, TOP, 1, height - TOP - BOTTOM);
    }
    this.tell(read);
  }

  grid(g, css, width, height, top, y) {
    g.font = "11px system-ui, sans-serif";
    g.fillStyle = css.getPropertyValue("--soft");
    g.strokeStyle = css.getPropertyValue("--line");
    g.lineWidth = 1;
    g.textBaseline = "middle";
    g.textAlign = "right";
    for (const n of [0, top / 2, top]) {
      const at = Math.round(y(n)) + 0.5;
      g.beginPath();
      g.moveTo(LEFT, at);
      g.lineTo(width - RIGHT, at);
      g.stroke();
      g.fillText(this.format(n), LEFT - 6, at);
    }
    g.textBaseline = "alphabetic";
    const names = ["−5 min", "−4", "−3", "−2", "−1", "now"];
    names.forEach((name, i) => {
      g.textAlign = i === 0 ? "left" : i === 5 ? "right" : "center";
      g.fillText(name, LEFT + (i / 5) * (width - LEFT - RIGHT), height - 4);
    });
  }

  line(g, samples, values, x, y) {
    g.lineWidth = 1.75;
    g.lineJoin = "round";
    g.beginPath();
    let before = null;
    samples.forEach((sample, i) => {
      if (values[i] === null) {
        before = null;
        return;
      }
      const goesOn = before !== null && sample.t - before <= GAP_MS;
      if (goesOn) g.lineTo(x(sample.t), y(values[i]));
      else g.moveTo(x(sample.t), y(values[i]));
      // The first sample of a piece is a dot: there is no line to it yet.
      if (!goesOn) g.rect(x(sample.t) - 0.5, y(values[i]) - 0.5, 1, 1);
      if (!goesOn) g.moveTo(x(sample.t), y(values[i]));
      before = sample.t;
    });
    g.stroke();
  }

  tell(sample) {
    this.series.forEach((one, i) => setText(this.values[i], sample ? this.format(one.value(sample)) : "–"));
    setText(this.when, sample && this.cursor !== null ? clock(sample.at) : "");
    const label = `${this.title}: ${this.series.map((one, i) => `${one.name} ${this.values[i].textContent}`).join(", ")}`;
    if (this.canvas.getAttribute("aria-label") !== label) this.canvas.setAttribute("aria-label", label);
  }
}

/** Bars of a histogram's buckets, in the width of a table's cell or of a panel. */
export function drawBars(canvas, counts) {
  const width = canvas.clientWidth, height = canvas.clientHeight, scale = devicePixelRatio || 1;
  if (!width || !height) return;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const g = canvas.getContext("2d"), css = getComputedStyle(canvas), top = Math.max(1, ...counts), step = width / Math.max(1, counts.length);
  g.scale(scale, scale);
  g.fillStyle = css.getPropertyValue("--line");
  g.fillRect(0, height - 1, width, 1);
  g.fillStyle = css.getPropertyValue("--s0");
  counts.forEach((n, i) => {
    const size = n === 0 ? 0 : Math.max(2, (n / top) * (height - 2));
    g.fillRect(i * step + 0.5, height - 1 - size, Math.max(1, step - 1), size);
  });
}
