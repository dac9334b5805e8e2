// @ts-check
/** Numbers and times as text, in the viewer's language and time zone. */

let locale = "en";

/** @param {string} language */
export function setLocale(language) {
  locale = language === "zh" ? "zh-CN" : "en-GB";
  kept.clear();
}

/** @type {Map<string, any>} */
const kept = new Map();

/**
 * Returns a formatter, which is made once: making one costs more than using it.
 * @template T
 * @param {string} name
 * @param {() => T} make
 * @returns {T}
 */
function keep(name, make) {
  if (!kept.has(name)) kept.set(name, make());
  return kept.get(name);
}

/** What is shown where there is no number. */
export const NONE = "–";

/** @param {number | null | undefined} value @param {number} [digits] */
export function number(value, digits = 0) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  return keep(`n${digits}`, () => new Intl.NumberFormat(locale, {
    minimumFractionDigits: digits, maximumFractionDigits: digits,
  })).format(value);
}

/** A short number for an axis: 1.2k, 3M. @param {number} value */
export function short(value) {
  return keep("short", () => new Intl.NumberFormat("en", {
    notation: "compact", maximumFractionDigits: 1,
  })).format(value);
}

/** Something per second. @param {number | null | undefined} value */
export function rate(value) {
  return number(value, value !== null && value !== undefined && value < 100 ? 1 : 0);
}

/** @param {number | null | undefined} value */
export function bytes(value) {
  if (value === null || value === undefined) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (value >= 1024 && at < units.length - 1) {
    value /= 1024;
    at += 1;
  }
  return `${number(value, at === 0 || value >= 100 ? 0 : 1)} ${units[at]}`;
}

/** @param {number | null | undefined} ms */
export function milliseconds(ms) {
  if (ms === null || ms === undefined) return NONE;
  return ms >= 1000 ? `${number(ms / 1000, 1)} s` : `${number(ms, ms < 10 ? 2 : ms < 100 ? 1 : 0)} ms`;
}

/** A length of time, in its two largest units. @param {number | null | undefined} seconds */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return NONE;
  const whole = Math.max(0, Math.round(seconds));
  const [d, hr, m, s] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24,
    Math.floor(whole / 60) % 60, whole % 60];
  if (d) return `${d} d ${hr} h`;
  if (hr) return `${hr} h ${m} min`;
  if (m) return `${m} min ${s} s`;
  return `${s} s`;
}

/**
 * Milliseconds since the epoch of a time of the API, which is text or a number.
 * @param {string | number | null | undefined} value
 * @returns {number}
 */
export function toMs(value) {
  if (value === null || value === undefined) return NaN;
  return typeof value === "number" ? value : Date.parse(value);
}

/** @param {string} name @param {Intl.DateTimeFormatOptions} options */
function timeFormat(name, options) {
  return keep(name, () => new Intl.DateTimeFormat(locale, { hourCycle: "h23", ...options }));
}

/** @param {string} name @param {Intl.DateTimeFormatOptions} options */
const shown = (name, options) =>
  /** @param {string | number | null | undefined} value */
  (value) => {
    const ms = toMs(value);
    return Number.isFinite(ms) ? timeFormat(name, options).format(ms) : NONE;
  };

export const clock = shown("clock", { hour: "2-digit", minute: "2-digit" });
export const clockSeconds = shown("seconds", {
  hour: "2-digit", minute: "2-digit", second: "2-digit",
});
export const day = shown("day", { month: "short", day: "numeric" });
export const weekday = shown("weekday", { weekday: "short", month: "short", day: "numeric" });
export const moment = shown("moment", {
  year: "numeric", month: "2-digit", day: "2-digit",
  hour: "2-digit", minute: "2-digit", second: "2-digit",
});
export const dayAndClock = shown("dayclock", {
  month: "short", day: "numeric", hour: "2-digit", minute: "2-digit",
});

/** The zone in which times are shown, such as UTC+8. */
export function zone() {
  const minutes = -new Date().getTimezoneOffset();
  if (minutes === 0) return "UTC";
  const [hours, rest] = [Math.floor(Math.abs(minutes) / 60), Math.abs(minutes) % 60];
  return `UTC${minutes < 0 ? "−" : "+"}${hours}${rest ? `:${String(rest).padStart(2, "0")}` : ""}`;
}

/** RFC 3339 in UTC, without parts of seconds, as the API takes it. @param {number} ms */
export function rfc3339(ms) {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
}

/** What the field of a local date and time holds, to the minute. @param {number} ms */
export function localField(ms) {
  const at = new Date(ms - new Date(ms).getTimezoneOffset() * 60_000);
  return at.toISOString().slice(0, 16);
}
