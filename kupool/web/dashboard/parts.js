// @ts-check
/** Parts that several pages show: figures, reasons, events, sessions. */

import { bytes, clockSeconds, dayAndClock, number } from "./format.js";
import { h, setText } from "./dom.js";
import { known, t } from "./i18n.js";
import { link, workerLink } from "./router.js";
import { table } from "./table.js";
import { empty } from "./view.js";

/** A name of a user or worker as a link to its page. @param {string} username */
export const who = (username) => h("a", { href: workerLink(username), class: "name" }, username);

/** A row of figures, whose values change in place. */
export class Figures {
  /** @type {Map<string, {value: Element, note: Element}>} */ #places = new Map();

  /** @param {[key: string, label: string][]} figures */
  constructor(figures) {
    this.element = h("dl", { class: "figures" }, figures.map(([key, label]) => {
      const [value, note] = [h("span", { class: "value", "data-figure": key }, "–"), h("span", { class: "note" })];
      this.#places.set(key, { value, note });
      return h("div", {}, h("dt", {}, label), h("dd", {}, value, note));
    }));
  }

  /** @param {string} key @param {string} value @param {string} [note] */
  set(key, value, note = "") {
    const place = this.#places.get(key);
    if (!place) return;
    setText(place.value, value);
    setText(place.note, note);
  }
}

/** Counts by reason, with bars. @param {Record<string, number>} reasons @param {string} nothing */
export function reasons(reasons, nothing) {
  const rows = Object.entries(reasons).filter(([, count]) => count).sort((a, b) => b[1] - a[1]);
  if (!rows.length) return empty(nothing);
  const most = rows[0][1];
  return h("ul", { class: "reasons" }, rows.map(([text, count]) => h("li", {},
    h("span", { class: "name" }, known(`reason.${text}`, text)),
    h("meter", { min: 0, max: most, value: count, "aria-hidden": "true" }),
    h("span", { class: "number" }, number(count)))));
}

/** What an event of the daemon says, in words. @param {any} event */
export function eventText(event) {
  const about = event.username ?? event.address ?? event.part ?? event.action ?? (event.job_id && `#${event.job_id}`) ?? "";
  const detail = event.reason ?? (event.seconds ? `${event.seconds} s` : null) ?? event.peer ?? event.waiting ?? "";
  return { name: known(`event.${event.type}`, event.type), about: String(about), detail: String(detail) };
}

/** @type {Record<string, string>} */
const TONES = { problem: "bad", ban: "bad", dead_letters: "bad", dead_letter: "bad", "reload.refused": "bad",
  "problem.over": "good", "ban.over": "good", started: "good", stopping: "warn", "events.dropped": "warn" };

/** A list of events, newest first. @param {any[]} events */
export function eventList(events) {
  if (!events.length) return empty(t("events.none"));
  return h("ol", { class: "events" }, events.map((event) => {
    const { name, about, detail } = eventText(event);
    return h("li", {},
      h("time", { datetime: new Date(event.at).toISOString(), title: dayAndClock(event.at) }, clockSeconds(event.at)),
      h("span", { class: `kind ${TONES[event.type] ?? ""}` }, name),
      h("span", { class: "about" }, event.username ? who(event.username) : about),
      h("span", { class: "dim detail", title: detail }, detail));
  }));
}

/** @returns {import("./table.js").Column[]} */
const sessionColumns = () => [
  { key: "username", label: t("col.username"), sort: "username", show: (row) => who(row.username) },
  { key: "peer", label: t("col.peer"), wide: true },
  { key: "framing", label: t("col.framing"), wide: true },
  { key: "since", label: t("col.since"), sort: "since", show: (row) => dayAndClock(row.since) },
  { key: "accepted", label: t("col.accepted"), number: true, sort: "accepted", show: (row) => number(row.accepted) },
  { key: "rejected", label: t("col.rejected"), number: true, sort: "rejected", show: (row) => number(row.rejected) },
  { key: "bytes", label: t("col.traffic"), number: true, wide: true, sort: "bytes", show: (row) => bytes((row.bytes_in ?? 0) + (row.bytes_out ?? 0)) },
];

/** A table of open sessions. @param {Partial<import("./table.js").TableOptions>} options @param {import("./table.js").Column[]} [more] */
export function sessionTable(options, more = []) {
  return table({ label: t("box.sessions"), id: (row) => row.session, empty: t("sessions.none"),
    columns: [...sessionColumns(), ...more], ...options });
}

/** A table of ended sessions. */
export function endedTable() {
  return table({ label: t("box.ended"), id: (row) => `${row.session}${row.until}`, empty: t("ended.none"), size: 20,
    columns: [
      { key: "until", label: t("col.until"), show: (row) => dayAndClock(row.until) },
      { key: "username", label: t("col.username"), show: (row) => who(row.username) },
      { key: "since", label: t("col.since"), wide: true, show: (row) => dayAndClock(row.since) },
      { key: "peer", label: t("col.peer"), wide: true },
      { key: "reason", label: t("col.reason"), show: (row) => known(`reason.${row.reason}`, row.reason) },
    ] });
}

/** The link to the trace of a submission. @param {string} id @param {any} text */
export const traceLink = (id, text) => h("a", { href: link(["trace"], { id }) }, text);
