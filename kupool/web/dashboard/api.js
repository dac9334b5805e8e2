// @ts-check
/** The HTTP API: requests with the viewer's token, and errors that say what was wrong. */

/** Seconds after which a request that has no answer has failed. */
const PATIENCE = 20;

const KEY = "kupool.token";

/** What went wrong with a request; `status` is 0 if there was no answer. */
export class ApiError extends Error {
  /** @param {number} status @param {string} text @param {string} path */
  constructor(status, text, path) {
    super(text);
    this.status = status;
    this.path = path;
  }

  /** The daemon could not be reached. */
  get offline() {
    return this.status === 0;
  }

  /** The daemon has no such route: it is older, or that part is off. */
  get missing() {
    return this.status === 405
      || (this.status === 404 && this.message.startsWith(`not found: ${this.path}`));
  }

  /** The viewer may not: they are nobody, or somebody else. */
  get refused() {
    return this.status === 401 || this.status === 403;
  }
}

/** Who the viewer is; tells of changes by the event `change`, and of an expired login by `expired`. */
class Visitor extends EventTarget {
  user = "";
  role = "anonymous";
  /** A token that was pasted; a login with a password has a cookie instead. */
  token = "";
  loggedIn = false;

  get isOperator() {
    return this.role === "operator" || this.role === "admin";
  }

  /** @param {string} token */
  keep(token) {
    this.token = token;
    try {
      if (token) sessionStorage.setItem(KEY, token);
      else sessionStorage.removeItem(KEY);
    } catch {
      // It holds until the page is left.
    }
  }

  restore() {
    try {
      this.token = sessionStorage.getItem(KEY) ?? "";
    } catch {
      this.token = "";
    }
  }

  /** @param {{user: string, role: string}} who */
  set(who) {
    const changed = this.user !== who.user || this.role !== who.role;
    this.user = who.user;
    this.role = who.role;
    this.loggedIn = who.user !== "";
    if (changed) this.dispatchEvent(new Event("change"));
  }
}

export const visitor = new Visitor();

/**
 * The routes of the daemon, as `GET /path`; null while they are not known. A route that is not there
 * is not asked for: a browser would write each such answer to its console.
 * @type {Set<string> | null}
 */
let routes = null;

/** Learns which routes there are: after the start, and after each restart of the daemon. */
export async function learnRoutes() {
  const told = await get("/");
  routes = new Set(told.routes.flatMap((/** @type {any} */ route) =>
    route.methods.map((/** @type {string} */ method) => `${method} ${route.path}`)));
}

/** @param {string} method @param {string} path */
function offered(method, path) {
  if (routes === null || path === "/") return true;
  const parent = path.slice(0, path.lastIndexOf("/"));
  return routes.has(`${method} ${path}`) || routes.has(`${method} ${parent}`);
}

/** The headers that say who asks. */
export function credentials() {
  return visitor.token ? { Authorization: `Bearer ${visitor.token}` } : {};
}

/**
 * Returns the address of a route with a query; params without a value are left out.
 * @param {string} path
 * @param {Record<string, any>} [params]
 */
export function address(path, params = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    if (value !== "" && value !== null && value !== undefined) query.append(name, String(value));
  }
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

/**
 * Sends a request; fails with an {@link ApiError}.
 * @param {string} method @param {string} url @param {any} [body] @param {AbortSignal} [signal]
 * @returns {Promise<Response>}
 */
async function send(method, url, body, signal) {
  const path = url.split("?")[0];
  if (!offered(method, path)) throw new ApiError(404, `not found: ${path}`, path);
  const limit = AbortSignal.timeout(PATIENCE * 1000);
  let response;
  try {
    response = await fetch(url, {
      method,
      headers: { Accept: "application/json", ...credentials(),
        ...(body === undefined ? {} : { "Content-Type": "application/json" }) },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
      credentials: "same-origin",
      cache: "no-store",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, String(/** @type {Error} */ (error).message), path);
  }
  if (response.ok) return response;
  const text = await response.text();
  let told = text.slice(0, 300);
  try {
    told = JSON.parse(text).error ?? told;
  } catch {
    // A proxy may answer with something else than JSON.
  }
  const failure = new ApiError(response.status, told || response.statusText, path);
  if (response.status === 401 && (visitor.loggedIn || visitor.token)) {
    visitor.dispatchEvent(new CustomEvent("expired", { detail: failure }));
  }
  throw failure;
}

/**
 * @param {string} path @param {Record<string, any>} [params] @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
export async function get(path, params, signal) {
  const response = await send("GET", address(path, params), undefined, signal);
  return response.json();
}

/**
 * Whether the daemon is ready, and all its problems: that answer has the status 503 if it is not.
 * @param {AbortSignal} signal
 * @returns {Promise<{ready: boolean, reasons: string[]}>}
 */
export async function readiness(signal) {
  try {
    return await (await fetch("/ready", { signal, cache: "no-store" })).json();
  } catch (error) {
    if (signal.aborted) throw error;
    throw new ApiError(0, String(/** @type {Error} */ (error).message), "/ready");
  }
}

/** @param {string} path @param {any} body @returns {Promise<any>} */
export async function post(path, body) {
  return (await send("POST", path, body)).json();
}

/** Returns a download as a blob. @param {string} path @param {Record<string, any>} params */
export async function download(path, params) {
  return (await send("GET", address(path, params), undefined, undefined)).blob();
}

/** Asks who the viewer is. */
export async function whoAmI() {
  try {
    visitor.set(await get("/api/me"));
  } catch (error) {
    if (!(error instanceof ApiError) || error.offline) throw error;
    visitor.keep("");
    if (error.status === 401) {
      // A cookie that is no longer valid would be refused by every route.
      await post("/api/logout", {}).catch(() => {});
      visitor.set(await get("/api/me").catch(() => ({ user: "", role: "anonymous" })));
    } else {
      visitor.set({ user: "", role: "anonymous" });
    }
  }
}

/** Logs in by a name and a password. @param {string} username @param {string} password */
export async function logIn(username, password) {
  visitor.keep("");
  const told = await post("/api/login", { username, password });
  visitor.set(told);
  return told;
}

/** Logs in by a token. @param {string} token */
export async function logInByToken(token) {
  const before = visitor.token;
  visitor.token = token;
  try {
    const told = await get("/api/me");
    visitor.keep(token);
    visitor.set(told);
  } catch (error) {
    visitor.token = before;
    throw error;
  }
}

export async function logOut() {
  visitor.keep("");
  await post("/api/logout", {}).catch(() => {});
  await whoAmI();
}

/**
 * Gets a new cookie before the old one ends; a token has its own time. Returns the seconds for which
 * the login is valid, or 0 if there is none to renew.
 * @returns {Promise<number>}
 */
export async function refreshLogin() {
  if (!visitor.loggedIn || visitor.token) return 0;
  try {
    return (await post("/api/refresh", {})).expires_in;
  } catch {
    return 0;
  }
}
