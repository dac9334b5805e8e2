// @ts-check
/** The overview: whether all is well, what happens now, and the last day. */

import { ApiError, get, readiness, visitor } from "../api.js";
import { live } from "../app.js";
import { chart, filled } from "../chart.js";
import { floorTo, DAY, latestEvents, MINUTE } from "../data.js";
import { h, setText } from "../dom.js";
import { clockSeconds, duration, milliseconds, number, rate, rfc3339, toMs } from "../format.js";
import { known, t } from "../i18n.js";
import { LiveStream } from "../live.js";
import { eventList, Figures, reasons, traceLink, who } from "../parts.js";
import { table } from "../table.js";
import { atMostEvery, Box, empty, failed, View } from "../view.js";

/** The most events and submissions that are listed. */
const LISTED = 12;

/** How often what is shown now is asked for, and the counts of the last day, in milliseconds. */
const [SOON, SELDOM] = [2000, 30_000];

export default class Overview extends View {
  #banner = h("section", { class: "banner", "aria-label": t("box.checks"), "data-box": "checks" });
  #figures = new Figures([
    ["sessions", t("figure.sessions")], ["users", t("figure.users")], ["accepted", t("figure.accepted")],
    ["rejected", t("figure.rejected")], ["job", t("figure.job")], ["latency", t("figure.latency")],
    ["total", t("figure.total")],
  ]);
  #minutes = new Box(t("box.minutes"), { id: "minutes" });
  #hours = new Box(t("box.hours"), { id: "hours" });
  #delay = new Box(t("box.latency"), { id: "latency" });
  #reasons = new Box(t("box.rejections"), { id: "rejections", note: t("note.quarter") });
  #top = new Box(t(visitor.role === "worker" ? "box.own" : "box.top"), { id: "top", note: t("note.quarter") });
  #events = new Box(t("box.events"), { id: "events" });
  #latest = new Box(t("box.submissions"), { id: "submissions" });
  /** @type {any[]} */ #told = [];
  /** @type {any[]} */ #submissions = [];
  /** The age of the job in seconds, and when that was. @type {[number, number] | null} */ #job = null;
  #charts = { minutes: chart(), hours: chart(), delay: chart() };
  #users = table({ label: t("box.top"), id: (row) => row.username, empty: t("top.none"), columns: [
    { key: "username", label: t("col.user"), show: (row) => who(row.username) },
    { key: "count", label: t("col.accepted"), number: true, show: (row) => number(row.count) },
  ] });

  start() {
    const left = [this.#minutes, this.#hours, this.#delay];
    const right = [this.#reasons, this.#top];
    if (visitor.isOperator) {
      left.push(this.#latest);
      right.push(this.#events);
    }
    this.replaceChildren(h("h1", { class: "hidden" }, t("page.overview")), this.#banner, this.#figures.element,
      h("div", { class: "boxes" }, [left, right].map((boxes) => h("div", { class: "column" }, boxes.map((box) => box.element)))));
    this.every(SOON, () => this.#now());
    this.every(SOON * 2.5, () => this.#counts());
    this.every(SELDOM, () => this.#day());
    this.every(1000, () => this.#age());
    this.hear(live.stream, "pool", ({ detail }) => {
      this.#figures.set("sessions", number(detail.sessions));
      this.#figures.set("users", number(detail.users));
    });
    this.hear(live.stream, "jobs", ({ detail }) => {
      this.#job = [0, performance.now()];
      this.#figures.set("job", duration(0), `#${detail.job_id}`);
    });
    this.hear(live.stream, "resumed", () => this.#all());
    this.hear(live.stream, "state", () => this.#now());
    if (visitor.isOperator) this.#stream();
  }

  #all() {
    this.#now();
    this.#counts();
    this.#day();
    if (visitor.isOperator) this.#history();
  }

  /** Lists events and submissions as they come. */
  #stream() {
    this.#history();
    this.hear(live.stream, "events", ({ detail }) => {
      if (this.#told.some((event) => event.id === detail.id)) return;
      this.#told = [detail, ...this.#told].slice(0, LISTED);
      this.#events.show(eventList(this.#told));
    });
    const count = atMostEvery(1000, () => this.#counts());
    const show = atMostEvery(200, () => this.#latest.show(this.#list()));
    const stream = new LiveStream(["submissions"], { max_rate: 20, policy: "drop-oldest" }).start();
    this.signal.addEventListener("abort", () => stream.stop());
    this.hear(stream, "submissions", ({ detail }) => {
      this.#submissions = [detail, ...this.#submissions].slice(0, LISTED);
      show();
      count();
    });
    this.hear(stream, "state", () => {
      if (stream.state === "live" && !this.#submissions.length) this.#latest.show(empty(t("submissions.none")));
    });
  }

  #list() {
    return h("ol", { class: "events" }, this.#submissions.map((one) => h("li", {},
      h("time", { datetime: new Date(one.at).toISOString() }, clockSeconds(one.at)),
      h("span", { class: "about" }, who(one.username)),
      h("span", { class: "dim detail" }, traceLink(one.id, t("action.trace"))))));
  }

  #history() {
    return this.#events.load(() => latestEvents(LISTED, this.signal), (events) => {
      this.#told = events;
      this.#events.show(eventList(events));
    });
  }

  async #now() {
    try {
      // Who sees only their own numbers would be refused: they see whether the daemon is ready.
      if (!visitor.isOperator) await this.#ready();
      else await get("/api/overview", {}, this.signal).then((told) => this.#overview(told), (error) => {
        if (error instanceof ApiError && (error.missing || error.refused)) return this.#ready();
        throw error;
      });
    } catch (error) {
      if (this.signal.aborted) return;
      if (error instanceof ApiError && error.offline) this.#verdict("offline", t("banner.offline"), []);
      else {
        delete this.#banner.dataset.key;
        this.#banner.replaceChildren(failed(error));
      }
    }
  }

  /** @param {any} told */
  #overview(told) {
    const bad = told.checks.filter((/** @type {any} */ check) => check.ok === false).length;
    this.#verdict(bad ? "bad" : "good", bad ? t("banner.bad", { count: bad }) : t("banner.good"), told.checks);
    this.#figures.set("sessions", number(told.sessions));
    this.#figures.set("users", number(told.users));
    this.#figures.set("accepted", rate(told.rates?.accepted), t("unit.perSecond"));
    this.#figures.set("rejected", rate(told.rates?.rejected), t("unit.perSecond"));
    const { latency_ms: delay, job } = told;
    this.#figures.set("latency", milliseconds(delay?.p99), delay ? t("figure.median", { value: milliseconds(delay.p50) }) : "");
    if (job) {
      this.#job = [job.age_seconds, performance.now()];
      this.#figures.set("job", duration(job.age_seconds), `#${job.id}`);
    }
  }

  /** What a daemon without that route can say. */
  async #ready() {
    const { ready, reasons: why } = await readiness(this.signal);
    const checks = [{ name: "ready", ok: ready && !why.length, text: why.join("; ") }];
    this.#verdict(ready ? (why.length ? "warn" : "good") : "bad", ready && !why.length ? t("banner.good") : why.join("; "), checks);
  }

  /** @param {string} kind @param {string} text @param {any[]} checks */
  #verdict(kind, text, checks) {
    const key = JSON.stringify([kind, text, checks]);
    if (this.#banner.dataset.key === key) return;
    this.#banner.dataset.key = key;
    this.#banner.className = `banner ${kind}`;
    let verdict = this.#banner.querySelector(".verdict");
    if (!verdict) {
      verdict = h("p", { class: "verdict", role: "status" });
      this.#banner.replaceChildren(verdict, h("ul", { class: "checks" }));
    }
    setText(verdict, text);
    this.#banner.querySelector(".checks").replaceChildren(...checks.map((check) => {
      const tone = check.ok === true ? "good" : check.ok === false ? "bad" : "unknown";
      const mark = { good: "✓", bad: "✗", unknown: "–" }[tone];
      return h("li", { class: tone, title: check.text },
        h("span", { class: "mark", "aria-hidden": "true" }, mark),
        h("span", {}, known(`check.${check.name}`, check.name)),
        h("span", { class: "hidden" }, t(`check.is.${tone}`)),
        check.ok === false ? h("span", { class: "why" }, check.text) : null);
    }));
  }

  #age() {
    if (this.#job === null) return;
    const [age, at] = this.#job;
    const value = this.#figures.element.querySelector('[data-figure="job"]');
    if (value) setText(value, duration(age + (performance.now() - at) / 1000));
  }

  async #counts() {
    const to = floorTo(Date.now(), MINUTE) + MINUTE;
    const from = to - 15 * MINUTE;
    await this.#minutes.load(() => get("/stats", { from: rfc3339(from), to: rfc3339(to), top: 8 }, this.signal), (told) => {
      const points = filled(from, to, MINUTE, (told.per_minute ?? []).map((/** @type {any} */ row) => [toMs(row.minute), row.count]));
      this.#minutes.show(this.#charts.minutes);
      this.#charts.minutes.show({ kind: "bar", step: MINUTE, label: t("box.minutes"), series: [{ name: t("series.accepted"), tone: "s1", points }] });
      if (told.sessions !== undefined) {
        this.#figures.set("sessions", number(told.sessions));
        this.#figures.set("users", number(told.users));
      }
      this.#figures.set("total", number(told.accepted_total ?? told.total), t("figure.ever"));
      this.#reasons.show(reasons(told.rejections ?? {}, t("rejections.none")));
      this.#top.show(this.#users);
      this.#users.show(told.top ?? (told.workers ?? []).map((/** @type {any} */ row) => ({ username: row.worker ? `${told.username}.${row.worker}` : told.username, count: row.count })));
    }, [this.#reasons, this.#top]);
  }

  async #day() {
    const to = floorTo(Date.now(), 10 * MINUTE) + 10 * MINUTE;
    const from = to - DAY;
    const step = 10 * MINUTE;
    await this.#hours.load(() => Promise.all([
      // What is accepted is what is counted; the rest is known since the daemon keeps it.
      get("/stats", { from: rfc3339(from), to: rfc3339(to) }, this.signal),
      !visitor.isOperator ? { minutes: [] } : get("/api/requests", { minutes: 1440 }, this.signal).catch((error) => {
        if (error instanceof ApiError && (error.missing || error.refused)) return { minutes: [] };
        throw error;
      }),
    ]), ([counts, requests]) => {
      const accepted = (counts.per_minute ?? []).map((/** @type {any} */ row) => [toMs(row.minute), row.count]);
      const rows = requests.minutes.map((/** @type {any} */ row) => ({ ...row, at: toMs(row.minute) }));
      const rejected = rows.map((/** @type {any} */ row) => [row.at, row.rejected]);
      this.#hours.show(this.#charts.hours);
      this.#charts.hours.show({ kind: "stack", step, label: t("box.hours"), series: [
        { name: t("series.accepted"), tone: "s1", points: filled(from, to, step, accepted) },
        ...(rows.length ? [{ name: t("series.rejected"), tone: "bad", points: filled(from, to, step, rejected) }] : []),
      ] });
      this.#latency(from, to, rows);
    }, [this.#delay]);
  }

  /** @param {number} from @param {number} to @param {any[]} rows */
  #latency(from, to, rows) {
    const found = rows.filter((row) => row.latency_ms);
    if (!found.length) {
      this.#delay.show(empty(t("latency.none")));
      return;
    }
    // The worst minute of each ten: an average of quantiles would be none.
    const worst = (/** @type {string} */ key) => {
      /** @type {Map<number, number>} */
      const most = new Map();
      for (const row of found) {
        const at = floorTo(row.at, 10 * MINUTE);
        most.set(at, Math.max(most.get(at) ?? 0, row.latency_ms[key]));
      }
      return filled(from, to, 10 * MINUTE, most, null);
    };
    this.#delay.show(this.#charts.delay);
    this.#charts.delay.show({ kind: "line", step: 10 * MINUTE, label: t("box.latency"), format: milliseconds, series: [
      { name: "p99", tone: "s1", points: worst("p99") }, { name: "p50", tone: "s2", points: worst("p50") }] });
  }
}

customElements.define("kp-overview", Overview);
