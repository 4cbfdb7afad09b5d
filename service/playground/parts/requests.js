/** Calls of the server, and what goes wrong with them in words. */

/** Where the page is; the operations are below it. */
export const HOME = new URL("../../", import.meta.url);

let key = "";
let wanted = () => {};

/** Who is told when a call was answered 401. */
export function onKeyWanted(listener) {
  wanted = listener;
}

/** The key that calls carry from now on. It is kept here only, as long as the page is open. */
export function useKey(value) {
  key = value;
}

export function hasKey() {
  return key !== "";
}

/** What a call was refused with. Its message is for people. */
export class Problem extends Error {
  constructor(body, status, retryAfter) {
    super(body.detail ?? body.title ?? "The server did not say what is wrong.");
    this.errors = (body.errors ?? []).map(({ loc, msg }) => ({ place: loc.filter((part) => part !== "body").join("."), msg }));
    this.status = status;
    this.retryAfter = retryAfter;
    this.title = body.title ?? "That did not work";
  }
}

/**
 * Sends a call.
 *
 * A call is `{path, json}` or `{path, form}`, with `accept` where the answer is not to be the operation's usual one. A form's values are
 * strings, numbers or pictures (`{name, blob}`).
 *
 * Gives `{body, headers, milliseconds}`: the body is an object or, of a picture, a Blob. Throws a Problem.
 */
export async function send(call, signal, id) {
  const headers = {};
  if (key) headers.Authorization = `Bearer ${key}`;
  if (call.accept) headers.Accept = call.accept;
  if (call.json) headers["Content-Type"] = "application/json";
  if (id) headers["X-Request-Id"] = id;
  const body = call.json ? JSON.stringify(call.json) : form(call.form);
  const begun = performance.now();
  const response = await reach(call.path, { method: "POST", headers, body, signal });
  if (!response.ok) throw await refusal(response);
  const read = response.headers.get("Content-Type").startsWith("image/") ? await response.blob() : await response.json();
  return { body: read, headers: response.headers, milliseconds: performance.now() - begun };
}

/** A file of the page's own, as a Blob. */
export async function load(path) {
  const response = await reach(path);
  if (!response.ok) throw await refusal(response);
  return response.blob();
}

/** What there is at a path, as an object; answers of other statuses than these are problems. */
export async function get(path, statuses = [200]) {
  const response = await reach(path, { headers: key ? { Authorization: `Bearer ${key}` } : {} });
  if (!statuses.includes(response.status)) throw await refusal(response);
  return response.json();
}

/** An id for a request, by which its progress can be asked for. */
export function requestId() {
  return [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function form(fields) {
  const data = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    if (value?.blob) data.append(name, value.blob, value.name);
    else data.append(name, value);
  }
  return data;
}

async function reach(path, options) {
  try {
    return await fetch(new URL(path, HOME), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ title: "No answer", detail: "The server cannot be reached. Is it still running?" });
  }
}

async function refusal(response) {
  const body = await response.json().catch(() => ({ detail: `The server answered ${response.status}.` }));
  if (response.status === 401) wanted();
  return new Problem(body, response.status, response.headers.get("Retry-After"));
}
