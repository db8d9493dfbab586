// SPDX-License-Identifier: MIT
// Figures for people. null and undefined are "–": not known.

const NONE = "–";
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const known = (n) => typeof n === "number" && Number.isFinite(n);

function digits(n) {
  const size = Math.abs(n);
  return n.toFixed(size < 10 && n !== Math.round(n) ? 2 : size < 100 && n !== Math.round(n) ? 1 : 0);
}

function scaled(n, units, base) {
  let i = 0;
  while (Math.abs(n) >= base * 0.9995 && i + 1 < units.length) {
    n /= base;
    i++;
  }
  return `${digits(n)}${units[i]}`;
}

export const count = (n) => (known(n) ? whole.format(n) : NONE);
/** Never longer than six characters or so. */
export const short = (n) => (!known(n) ? NONE : Math.abs(n) < 100000 ? whole.format(n) : scaled(n, ["", " k", " M", " G", " T"], 1000));
export const bytes = (n) => (known(n) ? scaled(n, [" B", " KiB", " MiB", " GiB", " TiB"], 1024) : NONE);
export const rate = (n) => (!known(n) ? NONE : n === 0 ? "0" : n < 10 ? n.toFixed(1) : short(n));
export const percent = (n) => (known(n) ? `${n < 9.95 ? n.toFixed(1) : n.toFixed(0)} %` : NONE);
export const ns = (n) => (known(n) ? scaled(n, [" ns", " µs", " ms", " s"], 1000) : NONE);
export const ms = (n) => (known(n) ? (n >= 1000 ? seconds(n / 1000) : `${digits(n)} ms`) : NONE);
export const yes = (b) => (b === true ? "yes" : b === false ? "no" : NONE);
export const text = (s) => (s === null || s === undefined || s === "" ? NONE : String(s));

export function seconds(s) {
  if (!known(s)) return NONE;
  if (s < 60) return `${digits(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

const two = (n) => String(n).padStart(2, "0");
export const clock = (date) => `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
export const clockMs = (date) => `${clock(date)}.${String(date.getMilliseconds()).padStart(3, "0")}`;
export const day = (date) => `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${clock(date)}`;

/** "1 client", "12 clients" */
export const many = (n, one, more = `${one}s`) => `${count(n)} ${n === 1 ? one : more}`;

/** Of a histogram with that unit (seconds or bytes). */
export const inUnit = (unit) => (unit === "seconds" ? (n) => (known(n) ? ns(n * 1e9) : NONE) : bytes);
