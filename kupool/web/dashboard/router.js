// @ts-check
/** Pages by the part of the address behind `#`: `#/worker/alice/rig1?range=week`. */

/**
 * @typedef {Object} Route
 * @property {string} page the first part
 * @property {string[]} parts the other parts
 * @property {Record<string, string>} query
 */

/** @returns {Route} */
export function route() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [page, ...parts] = path.split("/").map(decode);
  return { page: page || "overview", parts, query: Object.fromEntries(new URLSearchParams(query)) };
}

/** @param {string} text */
function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/**
 * Returns the link to a page.
 * @param {string[]} parts
 * @param {Record<string, any>} [query]
 */
export function link(parts, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value != null);
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return `#/${parts.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

/**
 * The user and the worker of a name, as the pool splits it: at the last dot, unless a part is empty.
 * @param {string} username
 * @returns {[user: string, worker: string]}
 */
export function parts(username) {
  const dot = username.lastIndexOf(".");
  const both = dot > 0 && dot < username.length - 1;
  return both ? [username.slice(0, dot), username.slice(dot + 1)] : [username, ""];
}

/** The link to the page of a user or of a worker, by a name as `alice.rig1`. @param {string} username */
export function workerLink(username) {
  return link(["worker", username]);
}

/**
 * Puts the state of a page into the address, so that it can be kept and sent; goes nowhere.
 * @param {Record<string, any>} query
 */
export function remember(query) {
  const { page, parts } = route();
  history.replaceState(null, "", link([page, ...parts], query));
}
