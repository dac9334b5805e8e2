// @ts-check
/** What several pages ask for: counts over time, and the latest events of the daemon. */

import { ApiError, get } from "./api.js";
import { filled } from "./chart.js";
import { rfc3339, toMs } from "./format.js";

export const MINUTE = 60_000;
export const HOUR = 3_600_000;
export const DAY = 86_400_000;

/** The start of a step of a time. @param {number} ms @param {number} step */
export function floorTo(ms, step) {
  if (step < DAY) return Math.floor(ms / step) * step;
  return Math.floor(ms / DAY) * DAY; // days are those of UTC, as everywhere in the API
}

/** The ranges of a chart: its length, and how much one point holds. */
export const RANGES = {
  day: { length: DAY, step: 10 * MINUTE, ask: "minute" },
  week: { length: 7 * DAY, step: HOUR, ask: "hour" },
  month: { length: 30 * DAY, step: DAY, ask: "day" },
};

/** @typedef {keyof typeof RANGES} RangeName */

/**
 * Returns the accepted submissions of a user or a worker over a range, up to now. A daemon without a
 * history of workers has the minutes of a week in its counts.
 * @param {string} username @param {RangeName} name @param {AbortSignal} signal
 */
export async function history(username, name, signal) {
  const { length, step, ask } = RANGES[name];
  const to = floorTo(Date.now(), step) + step;
  const from = to - length;
  const range = { from: rfc3339(from), to: rfc3339(to) };
  let found;
  try {
    const told = await get("/api/history", { username, ...range, step: ask }, signal);
    found = { rows: told.points.map((/** @type {any} */ p) => [toMs(p.at), p.accepted]), rejections: told.rejections ?? {} };
  } catch (error) {
    if (!(error instanceof ApiError) || !error.missing || name === "month") throw error;
    const told = await get("/stats", { username, ...range }, signal);
    found = { rows: (told.per_minute ?? []).map((/** @type {any} */ p) => [toMs(p.minute), p.count]), rejections: told.rejections ?? {} };
  }
  return { points: filled(from, to, step, found.rows), step, from, to, rejections: found.rejections };
}

/**
 * The accepted submissions of each hour of the last days. A daemon without a history of workers knows
 * those of a week; the hours before it are not in the answer.
 * @param {string} username @param {number} days @param {AbortSignal} signal
 */
export async function hours(username, days, signal) {
  const to = floorTo(Date.now(), HOUR) + HOUR;
  const range = (/** @type {number} */ from) => ({ from: rfc3339(from), to: rfc3339(to) });
  try {
    const from = to - days * DAY;
    const told = await get("/api/history", { username, ...range(from), step: "hour" }, signal);
    return filled(from, to, HOUR, told.points.map((/** @type {any} */ p) => [toMs(p.at), p.accepted]));
  } catch (error) {
    if (!(error instanceof ApiError) || !error.missing) throw error;
    const from = to - 7 * DAY;
    const told = await get("/stats", { username, ...range(from) }, signal);
    return filled(from, to, HOUR, (told.per_minute ?? []).map((/** @type {any} */ p) => [toMs(p.minute), p.count]));
  }
}

/**
 * Returns the latest events of the daemon, newest first, from its topic.
 * @param {number} most @param {AbortSignal} signal
 * @returns {Promise<any[]>}
 */
export async function latestEvents(most, signal) {
  const { offsets } = await get("/api/log/offsets", { topic: "events", at: "latest" }, signal);
  const found = [];
  for (const [partition, high] of offsets.entries()) {
    if (!high) continue;
    let told;
    const query = { topic: "events", partition };
    try {
      told = await get("/api/log/fetch", { ...query, offset: Math.max(0, high - most) }, signal);
    } catch (error) {
      // Older records are gone: what is left is less than that.
      if (!(error instanceof ApiError) || error.status !== 416) throw error;
      told = await get("/api/log/fetch", { ...query, at: "earliest" }, signal);
    }
    found.push(...told.records.map((/** @type {any} */ record) => JSON.parse(record.value)));
  }
  return found.sort((a, b) => b.at - a.at).slice(0, most);
}

/** Adds up counts by their names. @param {Record<string, number>[]} all */
export function added(all) {
  /** @type {Record<string, number>} */
  const sums = {};
  for (const one of all) {
    for (const [name, count] of Object.entries(one)) sums[name] = (sums[name] ?? 0) + count;
  }
  return sums;
}
