// @ts-check
/** My page: a login, and the viewer's own workers, rank, and downloads. */

import { download, get, logOut, visitor } from "../api.js";
import { live } from "../app.js";
import { chart } from "../chart.js";
import { DAY, history } from "../data.js";
import { loginForm, toast, why } from "../dialogs.js";
import { h, save } from "../dom.js";
import { dayAndClock, localField, number, rfc3339 } from "../format.js";
import { t } from "../i18n.js";
import { Figures, reasons, sessionTable, who } from "../parts.js";
import { link } from "../router.js";
import { table } from "../table.js";
import { Box, choice, field, View } from "../view.js";

export default class Me extends View {
  /** @type {import("../data.js").RangeName} */ #range = "day";

  start() {
    if (visitor.loggedIn) this.#own(visitor.user);
    else this.#login();
  }

  #login() {
    const box = new Box(t("action.login"), { id: "login" });
    box.show(loginForm(() => this.start()));
    this.replaceChildren(h("h1", {}, t("page.me")), h("p", {}, t(visitor.isOperator ? "me.reader" : "me.login")), h("div", { class: "boxes" }, box.element));
  }

  /** @param {string} user */
  #own(user) {
    const figures = new Figures([["today", t("figure.today")], ["total", t("figure.total")], ["rank", t("me.rank")]]);
    const picture = chart();
    const boxes = {
      rate: new Box(t("box.rate"), { id: "rate", wide: true, actions: [choice(t("filter.range"), [["day", t("range.day")], ["week", t("range.week")], ["month", t("range.month")]], this.#range,
        (range) => { this.#range = /** @type {any} */ (range); load(); })] }),
      workers: new Box(t("me.workers"), { id: "workers" }),
      reasons: new Box(t("box.rejections"), { id: "rejections" }),
      sessions: new Box(t("box.sessions"), { id: "sessions", wide: true }),
      download: new Box(t("me.download"), { id: "download", wide: true }),
    };
    const workers = table({ label: t("me.workers"), size: 20, empty: t("workers.none"), id: (row) => row.worker, sorted: { key: "accepted", order: "desc" }, columns: [
      { key: "worker", label: t("col.worker"), sort: true, show: (row) => who(row.worker ? `${user}.${row.worker}` : user) },
      { key: "online", label: t("col.state"), show: (row) => h("span", { class: row.online ? "tag good" : "tag" }, row.online ? t("state.online") : t("state.away")) },
      { key: "accepted", label: t("col.accepted"), number: true, sort: true, show: (row) => number(row.accepted) },
      { key: "last", label: t("col.last"), number: true, wide: true, sort: true, show: (row) => dayAndClock(row.last) }] });
    const sessions = sessionTable({ size: 20, sorted: { key: "since", order: "desc" } });
    const today = () => Math.floor(Date.now() / DAY) * DAY;
    const load = () => boxes.rate.load(() => history(user, this.#range, this.signal), (told) => {
      boxes.rate.show(picture);
      picture.show({ kind: "bar", step: told.step, label: t("box.rate"), series: [{ name: t("series.accepted"), tone: "s1", points: told.points }] });
      boxes.reasons.show(reasons(told.rejections, t("rejections.none")));
    }, [boxes.reasons]);
    boxes.download.show(this.#downloads(user));
    this.replaceChildren(h("h1", { class: "name" }, user),
      h("p", { class: "row" }, h("span", { class: "tag" }, t(`role.${visitor.role}`)),
        h("a", { href: link(["trace"], { user }) }, t("me.trace")),
        h("button", { type: "button", on: { click: async () => {
          await logOut();
          this.start();
        } } }, t("action.logout"))),
      figures.element, h("div", { class: "boxes" }, Object.values(boxes).map((box) => box.element)));
    this.every(15_000, load);
    this.every(10_000, () => boxes.workers.load(() => get("/api/workers", { user, limit: 1000, sort: "accepted", order: "desc" }, this.signal), (told) => {
      boxes.workers.show(workers);
      workers.show(told.workers);
    }));
    this.every(10_000, () => boxes.sessions.load(() => get("/api/sessions", { user, limit: 200 }, this.signal), (told) => {
      boxes.sessions.show(sessions);
      sessions.show(told.sessions);
    }));
    this.every(5000, async () => {
      const range = { from: rfc3339(today()), to: rfc3339(today() + DAY) };
      const [counts, rank] = await Promise.all([get("/stats", { username: user, ...range }, this.signal).catch(() => null), get("/api/rank", { user, ...range }, this.signal).catch(() => null)]);
      if (counts) {
        figures.set("today", number(counts.accepted), "UTC");
        figures.set("total", number(counts.total), t("figure.ever"));
      }
      figures.set("rank", rank?.rank ? number(rank.rank) : "–", rank?.rank ? t("me.of", { count: number(rank.of) }) : "");
    });
    this.hear(live.stream, "resumed", load);
  }

  /** @param {string} user */
  #downloads(user) {
    const from = h("input", { name: "from", type: "datetime-local", required: true, value: localField(Date.now() - DAY) });
    const to = h("input", { name: "to", type: "datetime-local", required: true, value: localField(Date.now() + 60_000) });
    const button = (/** @type {string} */ format) => h("button", { type: "submit", value: format }, format.toUpperCase());
    return h("form", { class: "filters", "data-form": "download", on: { submit: async (/** @type {SubmitEvent} */ event) => {
      event.preventDefault();
      const format = /** @type {any} */ (event.submitter).value ?? "csv";
      try {
        const params = { user, from: rfc3339(Date.parse(from.value)), to: rfc3339(Date.parse(to.value)), format };
        save(`${user.replace(/[^\w.-]+/g, "_")}.${format === "csv" ? "csv" : "jsonl"}`, await download("/api/submissions", params));
      } catch (error) {
        toast(why(error));
      }
    } } }, field(t("me.from"), from), field(t("me.to"), to), button("csv"), button("json"));
  }
}

customElements.define("kp-me", Me);
