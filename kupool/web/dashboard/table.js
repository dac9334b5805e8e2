// @ts-check
/** A table that is sorted by its heads, has pages, and keeps the focus while its rows change. */

import { h } from "./dom.js";
import { number } from "./format.js";
import { t } from "./i18n.js";
import { empty } from "./view.js";

/**
 * @typedef {Object} Column
 * @property {string} key
 * @property {string} label
 * @property {(row: any) => any} [show] returns text or a node; by default the value of the key
 * @property {boolean} [number] numbers stand to the right
 * @property {boolean | string} [sort] whether it can be sorted; the name that the server has for it
 * @property {boolean} [wide] left out where there is little room
 * @property {(row: any) => any} [by] the value to sort by, where the page sorts
 */

/**
 * @typedef {Object} TableOptions
 * @property {string} label what the table shows, for screen readers
 * @property {Column[]} columns
 * @property {(row: any) => string} id tells rows apart
 * @property {string} [empty] the text for no rows
 * @property {number} [size] the rows of a page; all rows by default
 * @property {{key: string, order: "asc" | "desc"}} [sorted]
 * @property {(sort: string, order: string, offset: number) => void} [ask] where the server sorts
 *   and pages: called for another order or page
 */

export class DataTable extends HTMLElement {
  /** @type {TableOptions} */ #options = { label: "", columns: [], id: () => "" };
  /** @type {any[]} */ #rows = [];
  #total = 0;
  #offset = 0;
  #body = h("tbody");
  #head = h("tr");
  #table = h("table", {}, h("thead", {}, this.#head), this.#body);
  #none = h("div", { hidden: true });
  #pager = h("nav", { class: "pager", hidden: true });
  #sorted = { key: "", order: "asc" };
  /** @type {Map<string, {text: string, row: HTMLTableRowElement}>} */ #shown = new Map();

  /** @param {TableOptions} options */
  setup(options) {
    this.#options = options;
    this.#sorted = { ...(options.sorted ?? { key: "", order: "asc" }) };
    this.replaceChildren(
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": options.label },
        this.#table),
      this.#none, this.#pager);
    this.#none.replaceChildren(empty(options.empty));
    this.#heads();
    return this;
  }

  /**
   * Shows rows; where the server pages, `total` is how many there are.
   * @param {any[]} rows @param {number} [total] @param {number} [offset]
   */
  show(rows, total = rows.length, offset = this.#offset) {
    this.#rows = rows;
    this.#total = total;
    this.#offset = offset;
    this.#render();
  }

  #heads() {
    const heads = this.#options.columns.map((column) => {
      const classes = [column.number ? "number" : "", column.wide ? "wide" : ""].join(" ").trim();
      const active = this.#sorted.key === column.key;
      const order = this.#sorted.order === "asc" ? "ascending" : "descending";
      const arrow = h("span", { class: "arrow", "aria-hidden": "true" },
        active ? (order === "ascending" ? "▲" : "▼") : "");
      // Before the label of numbers, so that it stands above their last digit.
      const parts = column.number ? [arrow, column.label] : [column.label, arrow];
      const inside = column.sort
        ? h("button", { type: "button", on: { click: () => this.#sort(column) } }, parts) : column.label;
      return h("th", { scope: "col", class: classes || null, "aria-sort": active ? order : null },
        inside);
    });
    const focused = [...this.#head.children].findIndex((head) => head.contains(document.activeElement));
    this.#head.replaceChildren(...heads);
    if (focused >= 0) heads[focused].querySelector("button")?.focus();
  }

  /** @param {Column} column */
  #sort(column) {
    const same = this.#sorted.key === column.key;
    const first = column.number ? "desc" : "asc";
    const other = this.#sorted.order === "asc" ? "desc" : "asc";
    this.#sorted = { key: column.key, order: same ? other : first };
    this.#offset = 0;
    this.#heads();
    this.#asked();
  }

  #asked() {
    const { ask, columns } = this.#options;
    if (!ask) {
      this.#render();
      return;
    }
    const column = columns.find((found) => found.key === this.#sorted.key);
    const name = typeof column?.sort === "string" ? column.sort : this.#sorted.key;
    ask(name, this.#sorted.order, this.#offset);
  }

  /** The rows in their order, where the page sorts. */
  #ordered() {
    const column = this.#options.columns.find((found) => found.key === this.#sorted.key);
    if (this.#options.ask || !column) return this.#rows;
    const value = column.by ?? ((row) => row[column.key]);
    const sign = this.#sorted.order === "asc" ? 1 : -1;
    return [...this.#rows].sort((one, other) => {
      const [a, b] = [value(one), value(other)];
      if (a === b) return 0;
      if (a === null || a === undefined) return 1;
      if (b === null || b === undefined) return -1;
      if (typeof a === "string") return sign * a.localeCompare(String(b));
      return a < b ? -sign : sign;
    });
  }

  #render() {
    const { size, ask, id } = this.#options;
    const rows = this.#ordered();
    const total = ask ? this.#total : rows.length;
    if (!ask && this.#offset >= total) this.#offset = 0;
    const page = ask || !size ? rows : rows.slice(this.#offset, this.#offset + size);
    const focused = this.#focused();
    const next = new Map();
    page.forEach((row, at) => {
      const key = id(row) || String(at);
      const text = JSON.stringify(row);
      const before = this.#shown.get(key);
      const element = before?.text === text ? before.row : this.#row(row, key);
      next.set(key, { text, row: element });
    });
    this.#shown = next;
    const elements = [...next.values()].map((found) => found.row);
    if (elements.some((row, at) => this.#body.children[at] !== row)
        || elements.length !== this.#body.children.length) {
      this.#body.replaceChildren(...elements);
    }
    this.#focus(focused);
    this.#none.hidden = total > 0;
    this.#table.hidden = total === 0;
    this.#page(total, size ?? total);
  }

  /** @param {any} row @param {string} key */
  #row(row, key) {
    const cells = this.#options.columns.map((column, at) => {
      const shown = column.show ? column.show(row) : row[column.key];
      const classes = [column.number ? "number" : "", column.wide ? "wide" : ""].join(" ").trim();
      return h(at === 0 ? "th" : "td",
        { class: classes || null, scope: at === 0 ? "row" : null }, shown ?? "–");
    });
    return h("tr", { "data-key": key }, cells);
  }

  /** Where the focus is in the rows: the row, and which of its links and buttons. */
  #focused() {
    const active = document.activeElement;
    const row = this.#body.contains(active) ? active?.closest("tr") : null;
    if (!row) return null;
    return { key: row.dataset.key ?? "", at: [...row.querySelectorAll("a, button")].indexOf(active) };
  }

  /** @param {{key: string, at: number} | null} place */
  #focus(place) {
    if (!place) return;
    const row = this.#shown.get(place.key)?.row;
    const element = /** @type {HTMLElement | undefined} */ (row?.querySelectorAll("a, button")[place.at]);
    if (element && element !== document.activeElement) element.focus();
  }

  /** @param {number} total @param {number} size */
  #page(total, size) {
    this.#pager.hidden = total <= size;
    if (this.#pager.hidden) return;
    const last = Math.min(total, this.#offset + size);
    const go = (/** @type {number} */ offset) => () => {
      this.#offset = offset;
      this.#asked();
      /** @type {any} */ (this.firstElementChild).focus();
    };
    this.#pager.setAttribute("aria-label", t("table.pages"));
    this.#pager.replaceChildren(
      h("button", { type: "button", disabled: this.#offset === 0,
        on: { click: go(Math.max(0, this.#offset - size)) } }, t("table.previous")),
      h("span", { "aria-live": "polite" }, t("table.range", {
        first: number(this.#offset + 1), last: number(last), total: number(total) })),
      h("button", { type: "button", disabled: last >= total,
        on: { click: go(this.#offset + size) } }, t("table.next")));
  }
}

customElements.define("kp-table", DataTable);

/** @param {TableOptions} options @returns {DataTable} */
export function table(options) {
  return h("kp-table").setup(options);
}
