// SPDX-License-Identifier: MIT
// The admin API (docs/ADMIN-API.md): addresses, token, errors. Addresses are relative, so that a proxy may put the
// page and the API below a path of its own.

const TOKEN_KEY = "tgg-admin-token";

/** Events: "unauthorized" when the gateway wants a token, or another one. */
export const session = new EventTarget();

let token = "";
try { token = sessionStorage.getItem(TOKEN_KEY) ?? ""; } catch { /* storage may be forbidden */ }

export const hasToken = () => token !== "";

export function setToken(value) {
  token = value;
  try {
    if (value) sessionStorage.setItem(TOKEN_KEY, value);
    else sessionStorage.removeItem(TOKEN_KEY);
  } catch { /* then it is kept by this page only */ }
}

/** status 0: the gateway does not answer; -1: given up by us. */
export class ApiError extends Error {
  constructor(status, message, body = null) {
    super(message);
    this.status = status;
    this.body = body;
  }
}

/** path with a query of those parameters that are set. */
export function address(path, params = {}) {
  const query = Object.entries(params)
    .filter(([, value]) => value !== undefined && value !== null && value !== "")
    .map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`);
  return query.length ? `${path}?${query.join("&")}` : path;
}

async function ask(method, path, params, signal) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const asked_with = token;
  let response;
  try {
    response = await fetch(address(path, params), { method, headers, signal, cache: "no-store", credentials: "same-origin" });
  } catch (error) {
    throw failure(error);
  }
  if (response.status === 401) {
    // An answer to a token that is not ours any more says nothing about this one.
    if (asked_with === token) session.dispatchEvent(new CustomEvent("unauthorized", { detail: { refused: token !== "" } }));
    throw new ApiError(401, "a token is needed");
  }
  return response;
}

function failure(error) {
  if (error instanceof ApiError) return error;
  if (error.name === "TimeoutError") return new ApiError(0, "no answer in time");
  if (error.name === "AbortError") return new ApiError(-1, "given up");
  return new ApiError(0, "the gateway does not answer");
}

async function json(response) {
  let body = null, text = "";
  try {
    text = await response.text();
    body = JSON.parse(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw failure(error);
  }
  if (!response.ok) {
    throw new ApiError(response.status, typeof body?.error === "string" ? body.error : `HTTP status ${response.status}`, body);
  }
  if (body === null || typeof body !== "object") throw new ApiError(response.status, "this is no answer of a gateway");
  return body;
}

/** The answer's object. Throws ApiError. */
export async function get(path, params, { timeoutMs = 10000, signal } = {}) {
  const timeout = AbortSignal.timeout(timeoutMs);
  const both = signal && AbortSignal.any ? AbortSignal.any([signal, timeout]) : signal ?? timeout;
  return json(await ask("GET", path, params, both));
}

/** Orders may take as long as they are told to: no bound in time. */
export async function post(path, params) {
  return json(await ask("POST", path, params));
}

/** Objects of an answer of lines, as they come. */
export async function* lines(path, params, signal) {
  const response = await ask("GET", path, params, signal);
  if (!response.ok) await json(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n");
      rest = parts.pop();
      for (const part of parts) {
        if (!part.trim()) continue;
        let line;
        try { line = JSON.parse(part); } catch { line = { event: "?", text: part }; }
        yield line;
      }
    }
  } catch (error) {
    throw failure(error);
  } finally {
    reader.cancel().catch(() => {});
  }
}
