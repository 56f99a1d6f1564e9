// Asks the server. It adds the key, if one was needed, and turns what goes wrong into sentences.

const KEY = "streamguard-key";
const TIMEOUT_MS = 30_000;

let askForKey = null;
let asking = null;
// Whoever has said no is not asked by what goes on by itself.
let isDeclined = false;

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** `ask` shows a dialog, and resolves to a key, or to null if there is none. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

export function storedKey() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

export function storeKey(key) {
  try {
    if (key === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, key);
  } catch {
    // A browser that keeps nothing asks again after the page was loaded again.
  }
}

function headers(key) {
  return key === null ? {} : { Authorization: `Bearer ${key}` };
}

/** The next question may ask for a key: somebody has asked it. */
export function askAgain() {
  isDeclined = false;
}

/** One dialog, however many questions were refused. */
async function keyAfter(refused) {
  const known = storedKey();
  if (known !== null && known !== refused) return known;
  if (isDeclined) return null;
  asking ??= askForKey(refused !== null).finally(() => {
    asking = null;
  });
  const key = await asking;
  if (key !== null) storeKey(key);
  isDeclined = key === null;
  return key;
}

/** The address of a question: parts of the path are names of others, and parameters that say nothing are left out. */
export function address(path, parameters = {}) {
  const segments = path.map((segment) => {
    // Every browser takes these for steps through folders, in whatever way they are written.
    if (segment === "." || segment === "..")
      throw new ApiError(0, `"${segment}" cannot be asked for here: use sg-query`);
    return encodeURIComponent(segment.toWellFormed?.() ?? segment);
  });
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") query.set(name, String(value));
  }
  const text = query.toString();
  return `/api/${segments.join("/")}${text ? `?${text}` : ""}`;
}

/** Opens an answer, with a key if one is needed. Whoever calls it reads the body. */
export async function open(url, signal, accept) {
  let key = storedKey();
  for (let n_waits = 0; ;) {
    let response;
    try {
      response = await fetch(url, {
        signal,
        cache: "no-store",
        credentials: "omit",
        redirect: "error",
        headers: { Accept: accept, ...headers(key) },
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new ApiError(0, "The server cannot be reached.");
    }
    // The server says when it has room again; it is waited for once.
    const seconds = [429, 503].includes(response.status) ? Number(response.headers.get("retry-after") ?? 1) : NaN;
    if (seconds <= 5 && n_waits < 1) {
      n_waits += 1;
      await response.body?.cancel();
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
      continue;
    }
    if (response.status !== 401) return response;
    await response.body?.cancel();
    key = await keyAfter(key);
    if (key === null) throw new ApiError(401, "This server asks for a key.");
    signal?.throwIfAborted();
  }
}

/** The text of an answer. */
export async function getText(path, parameters, signal) {
  const limit = new AbortController();
  const stop = () => limit.abort(signal.reason);
  signal?.addEventListener("abort", stop);
  let timer = null;
  try {
    signal?.throwIfAborted();
    const url = address(path, parameters);
    // A person who looks for a key is not late.
    timer = setTimeout(
      () => asking ?? limit.abort(new ApiError(0, "The server has not answered in time.")),
      TIMEOUT_MS,
    );
    const response = await open(url, limit.signal, "application/json");
    const text = await response.text();
    if (!response.ok) throw new ApiError(response.status, problem(response, text));
    return text;
  } catch (error) {
    if (limit.signal.aborted) throw limit.signal.reason;
    throw error;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
  }
}

/** What an answer says. */
export async function get(path, parameters, signal) {
  const text = await getText(path, parameters, signal);
  try {
    return JSON.parse(text);
  } catch {
    throw new ApiError(0, "The server has answered with something that is no JSON.");
  }
}

/** What a refused question was refused for (RFC 9457). */
export function problem(response, text) {
  let detail = "";
  try {
    const body = JSON.parse(text);
    if (typeof body.detail === "string") detail = body.detail;
    else if (typeof body.title === "string") detail = body.title;
  } catch {
    // Whoever stands between us and the server may answer in other words.
  }
  return detail || `The server has answered with status ${response.status}.`;
}

export function isAborted(error) {
  return error?.name === "AbortError";
}
