// @ts-check
/** All workers of a day: search, sort, filter. */

import { get } from "../api.js";
import { DAY } from "../data.js";
import { h } from "../dom.js";
import { dayAndClock, number, rfc3339 } from "../format.js";
import { t } from "../i18n.js";
import { who } from "../parts.js";
import { remember, route } from "../router.js";
import { table } from "../table.js";
import { Box, calm, choice, field, View } from "../view.js";

/** The workers of a page of the table, and the most that are filtered by their state. */
const SIZE = 50;
const MOST = 1000;

export default class Workers extends View {
  #box = new Box(t("page.workers"), { id: "workers", wide: true, bare: true });
  #note = h("p", { class: "note", hidden: true }, t("workers.first", { count: number(MOST) }));
  #asked = { search: "", state: "all", days: "1", sort: "accepted", order: "desc", offset: 0, ...route().query };
  #table = table({
    label: t("page.workers"), size: SIZE, empty: t("workers.none"), id: (row) => JSON.stringify([row.user, row.worker]),
    sorted: { key: this.#asked.sort, order: /** @type {any} */ (this.#asked.order) },
    ask: (sort, order, offset) => this.#ask({ sort, order, offset }),
    columns: [
      { key: "worker", label: t("col.worker"), sort: "worker", show: (row) => who(row.worker ? `${row.user}.${row.worker}` : row.user) },
      { key: "user", label: t("col.user"), sort: "user", wide: true, show: (row) => who(row.user) },
      { key: "online", label: t("col.state"), show: (row) => h("span", { class: row.online ? "tag good" : "tag" }, row.online ? t("state.online") : t("state.away")) },
      { key: "accepted", label: t("col.accepted"), number: true, sort: "accepted", show: (row) => number(row.accepted) },
      { key: "rejected", label: t("col.rejected"), number: true, show: (row) => number(row.rejected) },
      { key: "last", label: t("col.last"), number: true, sort: "last", wide: true, show: (row) => dayAndClock(row.last) },
    ],
  });

  start() {
    const search = h("input", { type: "search", name: "search", value: this.#asked.search, autocomplete: "off",
      placeholder: t("workers.search"), on: { input: calm(250, () => this.#ask({ search: search.value, offset: 0 })) } });
    this.replaceChildren(h("h1", {}, t("page.workers")),
      h("form", { class: "filters", role: "search", on: { submit: (/** @type {Event} */ event) => event.preventDefault() } },
        field(t("action.search"), search),
        choice(t("col.state"), [["all", t("filter.all")], ["online", t("state.online")], ["away", t("state.away")]],
          this.#asked.state, (state) => this.#ask({ state, offset: 0 })),
        choice(t("filter.range"), [["1", t("range.day")], ["7", t("range.week")], ["30", t("range.month")]],
          String(this.#asked.days), (days) => this.#ask({ days, offset: 0 }))),
      this.#box.element);
    this.every(15_000, () => this.#load());
  }

  /** @param {Record<string, any>} changes */
  #ask(changes) {
    Object.assign(this.#asked, changes);
    remember(this.#asked);
    this.#load();
  }

  async #load() {
    const { search, sort, order, offset, days, state } = this.#asked;
    // Today by default, and whole days of UTC before it.
    const today = Math.floor(Date.now() / DAY) * DAY;
    const range = { from: rfc3339(today - (Number(days) - 1) * DAY), to: rfc3339(today + DAY) };
    // The daemon does not filter by the state: that is done here, with the first of its order.
    const all = state === "all";
    const asked = { search, sort, order, limit: all ? SIZE : MOST, offset: all ? offset : 0, ...range };
    await this.#box.load(() => get("/api/workers", asked, this.signal), (told) => {
      const rows = all ? told.workers : told.workers.filter((/** @type {any} */ row) => row.online === (state === "online"));
      this.#note.hidden = all || told.total <= MOST;
      this.#box.show(this.#table, this.#note);
      const from = Number(offset);
      if (all) this.#table.show(rows, told.total, from);
      else this.#table.show(rows.slice(from, from + SIZE), rows.length, from);
    });
  }
}

customElements.define("kp-workers", Workers);
