// @ts-check
/** Administration: jobs, sessions, bans, each change confirmed; and the audit trail. */

import { get, post, visitor } from "../api.js";
import { confirmed } from "../dialogs.js";
import { h } from "../dom.js";
import { dayAndClock, duration, moment } from "../format.js";
import { known, t } from "../i18n.js";
import { sessionTable } from "../parts.js";
import { table } from "../table.js";
import { Box, calm, field, View } from "../view.js";

export default class Admin extends View {
  #search = h("input", { type: "search", autocomplete: "off", "aria-label": t("sessions.search"), placeholder: t("sessions.search"),
    on: { input: calm(250, () => {
      Object.assign(this.#asked, { search: this.#search.value, offset: 0 });
      this.#loadSessions();
    }) } });
  #sessions = new Box(t("box.sessions"), { id: "sessions", wide: true, actions: [this.#search] });
  #bans = new Box(t("admin.bans"), { id: "bans" });
  #audit = new Box(t("admin.audit"), { id: "audit", wide: true });
  #jobs = new Box(t("admin.jobs"), { id: "jobs" });
  #asked = { search: "", sort: "since", order: "desc", offset: 0 };
  #open = sessionTable({ size: 25, sorted: { key: "since", order: "desc" }, ask: (sort, order, offset) => {
    Object.assign(this.#asked, { sort, order, offset });
    this.#loadSessions();
  } }, [{ key: "close", label: "", show: (row) => h("button", { type: "button", on: { click: () => this.#kick(row) } }, t("admin.kick")) }]);
  #banned = table({ label: t("admin.bans"), size: 20, empty: t("admin.noBans"), id: (row) => row.address, columns: [
    { key: "address", label: t("col.peer"), sort: true },
    { key: "seconds", label: t("admin.left"), number: true, sort: true, show: (row) => duration(row.seconds) },
    { key: "lift", label: "", show: (row) => h("button", { type: "button", on: { click: () => this.#lift(row.address) } }, t("admin.unban")) }] });
  #entries = table({ label: t("admin.audit"), size: 25, empty: t("admin.noAudit"), id: (row) => JSON.stringify(row), columns: [
    { key: "at", label: t("time"), show: (row) => moment(row.at) },
    { key: "by", label: t("admin.by"), show: (row) => row.by || "–" },
    { key: "action", label: t("admin.action"), show: (row) => known(`action.${row.action}`, row.action) },
    { key: "what", label: t("admin.what"), wide: true, show: (row) => h("code", {}, JSON.stringify(row.what ?? {})) },
    { key: "peer", label: t("col.peer"), wide: true },
    { key: "ok", label: t("admin.result"), show: (row) => h("span", { class: row.ok ? "tag good" : "tag bad" }, row.ok ? t("admin.ok") : t("admin.refused")) }] });

  start() {
    const interval = h("input", { name: "interval", required: true, placeholder: "30s", size: 8, autocomplete: "off" });
    const address = h("input", { name: "address", required: true, placeholder: "192.0.2.1", autocomplete: "off" });
    const seconds = h("input", { name: "seconds", type: "number", min: 1, required: true, value: 3600 });
    const user = h("input", { name: "user", required: true, autocomplete: "off" });
    const form = (/** @type {string} */ name, /** @type {() => any} */ run, /** @type {any[]} */ ...inside) => h("form", { class: "filters", "data-form": name, on: {
      submit: (/** @type {Event} */ event) => {
        event.preventDefault();
        run();
      } } }, ...inside);
    this.#jobs.show(
      form("rotate", () => this.#rotate(), h("button", { type: "submit" }, t("admin.rotate"))),
      form("interval", () => this.#interval(interval.value.trim()), field(t("admin.interval"), interval), h("button", { type: "submit" }, t("admin.set"))),
      form("kick-user", () => this.#kickUser(user.value.trim()), field(t("admin.user"), user), h("button", { type: "submit" }, t("admin.kickUser"))),
      form("ban", () => this.#ban(address.value.trim(), Number(seconds.value)), field(t("admin.address"), address), field(t("admin.seconds"), seconds),
        h("button", { type: "submit", class: "danger" }, t("admin.ban"))));
    const hint = h("p", { class: "hint" }, t("admin.hint"), " ", h("a", { href: "#/me" }, t("action.login")));
    this.replaceChildren(h("h1", {}, t("page.admin")), ...(visitor.loggedIn ? [] : [hint]),
      h("div", { class: "boxes" }, this.#jobs.element, this.#bans.element,
        this.#sessions.element, this.#audit.element));
    this.every(5000, () => this.#loadSessions());
    this.every(5000, () => this.#loadBans());
    this.every(10_000, () => this.#loadAudit());
  }

  #loadSessions() {
    return this.#sessions.load(() => get("/api/sessions", { ...this.#asked, limit: 25 }, this.signal), (told) => {
      this.#sessions.show(this.#open);
      this.#open.show(told.sessions, told.total, this.#asked.offset);
    });
  }

  #loadBans() {
    return this.#bans.load(() => get("/bans", {}, this.signal), (told) => {
      this.#bans.show(this.#banned);
      this.#banned.show(told.bans);
    });
  }

  #loadAudit() {
    return this.#audit.load(() => get("/api/audit", { limit: 200 }, this.signal), (told) => {
      this.#audit.show(this.#entries);
      this.#entries.show(told.entries);
    });
  }

  /** @param {Parameters<typeof confirmed>[0]} asked */
  async #change(asked) {
    if (!await confirmed(asked)) return;
    await Promise.all([this.#loadSessions(), this.#loadBans(), this.#loadAudit()]);
  }

  #rotate() {
    return this.#change({ title: t("admin.rotate"), text: t("admin.rotateText"), action: t("admin.rotate"),
      run: () => post("/jobs/rotate", {}), done: (told) => t("admin.rotated", { id: told.job_id }) });
  }

  /** @param {string} interval */
  #interval(interval) {
    return this.#change({ title: t("admin.interval"), text: t("admin.intervalText", { interval }), action: t("admin.set"),
      run: () => post("/jobs/interval", { interval }), done: (told) => t("admin.intervalSet", { interval: told.interval }) });
  }

  /** @param {any} row */
  #kick(row) {
    return this.#change({ title: t("admin.kick"), text: t("admin.kickText", { name: row.username, since: dayAndClock(row.since) }), action: t("admin.kick"), danger: true,
      run: () => post("/api/sessions/close", { session: row.session }), done: (told) => t("admin.kicked", { count: told.closed }) });
  }

  /** @param {string} user */
  #kickUser(user) {
    return this.#change({ title: t("admin.kickUser"), text: t("admin.kickUserText", { name: user }), action: t("admin.kickUser"), danger: true,
      run: () => post("/api/sessions/close", { user }), done: (told) => t("admin.kicked", { count: told.closed }) });
  }

  /** @param {string} address @param {number} seconds */
  #ban(address, seconds) {
    return this.#change({ title: t("admin.ban"), text: t("admin.banText", { address, time: duration(seconds) }), action: t("admin.ban"), danger: true,
      run: () => post("/api/bans/add", { address, seconds }), done: () => t("admin.banned", { address }) });
  }

  /** @param {string} address */
  #lift(address) {
    return this.#change({ title: t("admin.unban"), text: t("admin.unbanText", { address }), action: t("admin.unban"),
      run: () => post("/bans/lift", { address }), done: () => t("admin.unbanned", { address }) });
  }
}

customElements.define("kp-admin", Admin);
