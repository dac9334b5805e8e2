// @ts-check
/** One worker, or one user: the rate over time, hours online, rejections, sessions. */

import { get } from "../api.js";
import { live } from "../app.js";
import { calendar } from "../calendar.js";
import { chart } from "../chart.js";
import { history, hours } from "../data.js";
import { h, save } from "../dom.js";
import { number, rfc3339 } from "../format.js";
import { t } from "../i18n.js";
import { endedTable, Figures, reasons, sessionTable, who } from "../parts.js";
import { link, parts, remember, route } from "../router.js";
import { table } from "../table.js";
import { Box, choice, View } from "../view.js";

/** The days of the calendar. */
const DAYS = 14;

export default class Worker extends View {
  /** @type {import("../data.js").RangeName} */ #range = "day";
  #username = route().parts[0] ?? "";
  #chart = chart();
  /** @type {any} */ #shown = null;
  #figures = new Figures([["today", t("figure.today")], ["range", t("figure.inRange")], ["total", t("figure.total")]]);

  start() {
    const [user, worker] = parts(this.#username);
    const asked = /** @type {any} */ (route().query.range);
    if (["day", "week", "month"].includes(asked)) this.#range = asked;
    this.boxes = {
      rate: new Box(t("box.rate"), { id: "rate", wide: true, actions: [
        choice(t("filter.range"), [["day", t("range.day")], ["week", t("range.week")], ["month", t("range.month")]], this.#range,
          (range) => { this.#range = /** @type {any} */ (range); remember({ range }); this.#rate(); }),
        h("button", { type: "button", on: { click: () => this.#csv() } }, t("action.csv"))] }),
      hours: new Box(t("box.calendar"), { id: "calendar", wide: true, note: t("note.days", { count: DAYS }) }),
      reasons: new Box(t("box.rejections"), { id: "rejections" }),
      workers: new Box(t("page.workers"), { id: "workers", note: t("note.today") }),
      sessions: new Box(t("box.sessions"), { id: "sessions", wide: true }),
      ended: new Box(t("box.ended"), { id: "ended", wide: true }),
    };
    const { rate, hours: calendarBox, reasons: why, workers, sessions, ended } = this.boxes;
    this.replaceChildren(
      h("p", { class: "crumbs" }, h("a", { href: link(["workers"]) }, t("page.workers")), worker ? [" / ", who(user)] : []),
      h("h1", { class: "name" }, this.#username),
      h("p", {}, h("a", { href: link(["trace"], { user: this.#username }) }, t("worker.trace"))),
      this.#figures.element,
      h("div", { class: "boxes" }, [rate, calendarBox, why, ...(worker ? [] : [workers]), sessions, ended].map((box) => box.element)));
    this.#user = user;
    this.#worker = worker;
    const open = sessionTable({ size: 20, sorted: { key: "since", order: "desc" } });
    const over = endedTable();
    const own = table({ label: t("page.workers"), size: 20, empty: t("workers.none"), id: (row) => row.worker,
      sorted: { key: "count", order: "desc" }, columns: [
        { key: "worker", label: t("col.worker"), sort: true, show: (row) => who(row.worker ? `${user}.${row.worker}` : user) },
        { key: "count", label: t("col.accepted"), number: true, sort: true, show: (row) => number(row.count) }] });
    this.every(20_000, () => this.#rate());
    this.every(60_000, () => calendarBox.load(() => hours(this.#username, DAYS, this.signal), (points) => {
      calendarBox.show(calendar(points));
      calendarBox.note.textContent = t("note.days", { count: Math.round(points.length / 24) });
    }));
    this.every(10_000, () => this.#counts(own));
    this.every(10_000, () => sessions.load(() => get("/api/sessions", { user, search: worker, limit: 200 }, this.signal), (told) => {
      sessions.show(open);
      open.show(told.sessions.filter((/** @type {any} */ row) => !worker || row.worker === worker));
    }));
    this.every(30_000, () => ended.load(() => get("/api/sessions/ended", { user, worker, limit: 200 }, this.signal), (told) => {
      ended.show(over);
      over.show(told.sessions);
    }));
    this.hear(live.stream, "resumed", () => this.#rate());
  }

  #user = "";
  #worker = "";

  #rate() {
    const { rate, reasons: why } = this.boxes;
    return rate.load(() => history(this.#username, this.#range, this.signal), (told) => {
      this.#shown = told;
      rate.show(this.#chart);
      this.#chart.show({ kind: "bar", step: told.step, label: t("box.rate"), series: [{ name: t("series.accepted"), tone: "s1", points: told.points }] });
      this.#figures.set("range", number(told.points.reduce((sum, point) => sum + (point[1] ?? 0), 0)), t(`range.${this.#range}`));
      why.show(reasons(told.rejections, t(this.#worker && !Object.keys(told.rejections).length ? "rejections.worker" : "rejections.none")));
    }, [why]);
  }

  /** @param {import("../table.js").DataTable} own */
  #counts(own) {
    const today = Math.floor(Date.now() / 86_400_000) * 86_400_000;
    const box = this.boxes.workers;
    return box.load(() => get("/stats", { username: this.#username, from: rfc3339(today), to: rfc3339(today + 86_400_000) }, this.signal), (told) => {
      this.#figures.set("today", number(told.accepted), "UTC");
      this.#figures.set("total", number(told.total), t("figure.ever"));
      box.show(own);
      own.show(told.workers ?? []);
    });
  }

  /** Saves what the chart shows. */
  #csv() {
    if (!this.#shown) return;
    const rows = this.#shown.points.map((/** @type {any} */ [at, value]) => `${rfc3339(at)},${value ?? ""}`);
    const name = this.#username.replace(/[^\w.-]+/g, "_");
    save(`${name}-${this.#range}.csv`, new Blob([["time,accepted", ...rows, ""].join("\r\n")], { type: "text/csv" }));
  }

  /** @type {Record<string, Box>} */ boxes = {};
}

customElements.define("kp-worker", Worker);
