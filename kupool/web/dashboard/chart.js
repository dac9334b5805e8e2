// @ts-check
/**
 * Charts in SVG: lines, bars and stacked bars over time, with axes, a tooltip by pointer and by the
 * arrow keys, and a table of the same numbers.
 */

import { h, setText, svg } from "./dom.js";
import { clock, day, dayAndClock, NONE, number, short, weekday } from "./format.js";
import { t } from "./i18n.js";

/** @typedef {[at: number, value: number | null]} Point milliseconds since the epoch, and a value */

/**
 * @typedef {Object} ChartData
 * @property {"line" | "bar" | "stack"} kind
 * @property {{name: string, tone: string, points: Point[]}[]} series of the same times; `tone` is
 *   the name of a colour in the style sheet: s1 to s6, or bad
 * @property {number} step milliseconds between two points
 * @property {string} label what the chart shows
 * @property {(value: number | null) => string} [format] by default a whole number
 * @property {string} [link] makes the address of a point: `{at}` is its time
 */

const [TOP, RIGHT, BOTTOM, LEFT] = [8, 8, 22, 52];
const HOUR = 3_600_000;

/**
 * Returns some round numbers from 0 to at least a maximum; only whole ones where things are counted.
 * @param {number} most @param {boolean} [whole]
 */
export function ticks(most, whole = false) {
  const rough = Math.max(most, 1e-9) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const steps = [1, 2, 2.5, 5, 10].map((n) => n * power).filter((n) => !whole || Number.isInteger(n));
  const step = steps.find((n) => n >= rough) ?? (whole ? 1 : rough);
  const count = Math.max(1, Math.ceil(most / step - 1e-9));
  return Array.from({ length: count + 1 }, (_, at) => at * step);
}

export class TimeChart extends HTMLElement {
  /** @type {ChartData | null} */ #data = null;
  #at = -1;
  #width = 0;
  #height = 180;
  #picture = svg("svg", { class: "chart", tabindex: "0", role: "img" });
  #cursor = svg("g", { class: "cursor" });
  #tip = h("div", { class: "tip", hidden: true });
  #said = h("div", { class: "hidden", "aria-live": "polite" });
  #legend = h("div", { class: "legend" });
  #table = h("table");
  #details = h("details", { class: "numbers" }, h("summary", {}, ""), h("div", { class: "scroll", tabindex: "0", role: "region" }, this.#table));
  #resized = new ResizeObserver(() => {
    if (this.clientWidth !== this.#width) this.#draw();
  });

  connectedCallback() {
    if (!this.firstChild) {
      this.append(this.#legend, h("div", { class: "plot" }, this.#picture, this.#tip), this.#said, this.#details);
      this.#picture.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => this.#point(event));
      this.#picture.addEventListener("pointerleave", () => this.#select(-1));
      this.#picture.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.#key(event));
      this.#picture.addEventListener("blur", () => this.#select(-1));
      this.#details.addEventListener("toggle", () => this.#rows());
    }
    this.#resized.observe(this);
    this.#draw();
  }

  disconnectedCallback() {
    this.#resized.disconnect();
  }

  /** @param {ChartData} data */
  show(data) {
    this.#data = data;
    setText(/** @type {any} */ (this.#details.firstChild), t("chart.table"));
    this.#details.lastChild.setAttribute("aria-label", data.label);
    this.#picture.setAttribute("aria-label", `${data.label}. ${t("chart.keys")}`);
    this.#legend.replaceChildren(...(data.series.length < 2 ? [] : data.series.map((series) =>
      h("span", {}, h("i", { class: `swatch ${series.tone}` }), series.name))));
    this.#draw();
    if (this.#details.open) this.#rows();
    return this;
  }

  get #times() {
    return this.#data?.series[0]?.points.map((point) => point[0]) ?? [];
  }

  /** @param {number | null} value */
  #text(value) {
    if (value === null || value === undefined) return NONE;
    return this.#data?.format ? this.#data.format(value) : number(value);
  }

  #draw() {
    const data = this.#data;
    this.#width = this.clientWidth;
    if (!data || !this.#width) return;
    const [width, height, times] = [this.#width, this.#height, this.#times];
    this.#picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.#picture.setAttribute("width", width);
    this.#picture.setAttribute("height", height);
    const scale = ticks(this.#most(), !data.format);
    const top = scale[scale.length - 1];
    const y = (/** @type {number} */ value) => height - BOTTOM - (value / top) * (height - TOP - BOTTOM);
    const grid = scale.map((value) => svg("g", { class: "tick" },
      svg("line", { x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
      svg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" },
        data.format && value ? data.format(value) : short(value))));
    this.#picture.replaceChildren(...grid, ...this.#below(times), ...(data.kind === "line"
      ? data.series.map((series) => this.#line(series, y)) : this.#bars(y)), this.#cursor);
    this.#mark();
  }

  #most() {
    const data = /** @type {ChartData} */ (this.#data);
    if (data.kind === "stack") {
      return Math.max(1, ...this.#times.map((_, at) =>
        data.series.reduce((sum, series) => sum + (series.points[at]?.[1] ?? 0), 0)));
    }
    const least = data.kind === "line" ? 1e-6 : 1;
    return Math.max(least, ...data.series.flatMap((series) => series.points.map((point) => point[1] ?? 0)));
  }

  /** The middle of a point from the left. @param {number} at */
  #x(at) {
    const slots = Math.max(1, this.#times.length);
    return LEFT + ((at + 0.5) * (this.#width - LEFT - RIGHT)) / slots;
  }

  /** @param {{tone: string, points: Point[]}} series @param {(value: number) => number} y */
  #line(series, y) {
    let [path, pen] = ["", false];
    series.points.forEach(([, value], at) => {
      if (value === null) pen = false;
      else {
        path += `${pen ? "L" : "M"}${this.#x(at).toFixed(1)} ${y(value).toFixed(1)}`;
        // A point alone would be invisible: it is a short line.
        if (!pen && (series.points[at + 1]?.[1] ?? null) === null) path += "m-3 0h6";
        pen = true;
      }
    });
    return svg("path", { d: path, class: `line ${series.tone}` });
  }

  /** @param {(value: number) => number} y */
  #bars(y) {
    const data = /** @type {ChartData} */ (this.#data);
    const slot = (this.#width - LEFT - RIGHT) / Math.max(1, this.#times.length);
    const wide = Math.max(0.5, slot > 4 ? slot - Math.min(4, slot * 0.25) : slot);
    // One path for each series: a day has 1440 bars.
    const base = new Float64Array(this.#times.length);
    return data.series.map((series) => {
      let path = "";
      series.points.forEach(([, value], at) => {
        if (!value) return;
        const [from, to] = [y(base[at]), y(base[at] + value)];
        if (data.kind === "stack") base[at] += value;
        path += `M${(this.#x(at) - wide / 2).toFixed(1)} ${from.toFixed(1)}h${wide.toFixed(2)}V${Math.min(to, from - 1).toFixed(1)}h${(-wide).toFixed(2)}z`;
      });
      return svg("path", { d: path, class: `bars ${series.tone}` });
    });
  }

  /** The labels of the times. @param {number[]} times */
  #below(times) {
    if (!times.length) return [];
    const step = /** @type {ChartData} */ (this.#data).step;
    const span = step * times.length;
    const room = Math.max(1, Math.floor((this.#width - LEFT - RIGHT) / (span > 36 * HOUR && span < 4 * 24 * HOUR ? 120 : 72)));
    const spans = [60_000, 2 * 60_000, 5 * 60_000, 10 * 60_000, 15 * 60_000, 30 * 60_000, HOUR, 2 * HOUR,
      3 * HOUR, 6 * HOUR, 12 * HOUR, 24 * HOUR, 48 * HOUR, 7 * 24 * HOUR, 28 * 24 * HOUR];
    // More than a few days have dates alone: a date with a time takes too much room.
    const least = span >= 4 * 24 * HOUR ? 24 * HOUR : step;
    const every = spans.find((one) => one >= least && span / one <= room) ?? span;
    const text = every >= 24 * HOUR ? day : span > 36 * HOUR ? dayAndClock : clock;
    const offset = new Date(times[0]).getTimezoneOffset() * 60_000;
    return times.map((at, index) => ({ at, index }))
      .filter(({ at }) => Math.floor((at - offset) / every) !== Math.floor((at - step - offset) / every))
      .filter(({ index }) => this.#x(index) > LEFT + 14 && this.#x(index) < this.#width - RIGHT - 18)
      .map(({ at, index }) => svg("g", { class: "tick below" },
        svg("line", { x1: this.#x(index), x2: this.#x(index), y1: this.#height - BOTTOM, y2: this.#height - BOTTOM + 4 }),
        svg("text", { x: this.#x(index), y: this.#height - 5, "text-anchor": "middle" }, text(at))));
  }

  /** @param {PointerEvent} event */
  #point(event) {
    const left = event.clientX - this.#picture.getBoundingClientRect().left;
    const slot = (this.#width - LEFT - RIGHT) / Math.max(1, this.#times.length);
    const at = Math.floor((left - LEFT) / slot);
    this.#select(at >= 0 && at < this.#times.length ? at : -1);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const last = this.#times.length - 1;
    const from = this.#at < 0 ? last + 1 : this.#at;
    const to = { ArrowLeft: from - 1, ArrowRight: Math.min(last, this.#at + 1), Home: 0, End: last,
      PageUp: from - 10, PageDown: this.#at + 10, Escape: -1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.#select(event.key === "Escape" ? -1 : Math.max(0, Math.min(last, to)));
    if (this.#at >= 0) setText(this.#said, this.#lines().join(", "));
  }

  /** @param {number} at */
  #select(at) {
    this.#at = at;
    this.#mark();
  }

  #lines() {
    const data = /** @type {ChartData} */ (this.#data);
    const at = this.#times[this.#at];
    const text = data.step >= 24 * HOUR ? weekday(at) : dayAndClock(at);
    return [text, ...data.series.map((series) => `${series.name}: ${this.#text(series.points[this.#at]?.[1] ?? null)}`)];
  }

  #mark() {
    const inside = this.#data && this.#at >= 0 && this.#at < this.#times.length;
    this.#tip.hidden = !inside;
    this.#cursor.replaceChildren();
    if (!inside) return;
    const x = this.#x(this.#at);
    this.#cursor.append(svg("line", { x1: x, x2: x, y1: TOP, y2: this.#height - BOTTOM }));
    const [first, ...rest] = this.#lines();
    this.#tip.replaceChildren(h("strong", {}, first), ...rest.map((line) => h("div", {}, line)));
    const half = this.#tip.offsetWidth / 2;
    const left = Math.max(half, Math.min(this.#width - half, x));
    this.#tip.style.setProperty("left", `${left}px`);
  }

  #rows() {
    const data = this.#data;
    if (!data) return;
    const text = data.step >= 24 * HOUR ? weekday : dayAndClock;
    const rows = this.#times.map((at, index) => h("tr", {}, h("th", { scope: "row" }, text(at)),
      data.series.map((series) => h("td", { class: "number" }, this.#text(series.points[index]?.[1] ?? null)))));
    this.#table.replaceChildren(
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, t("time")),
        data.series.map((series) => h("th", { scope: "col", class: "number" }, series.name)))),
      h("tbody", {}, rows.reverse()));
  }
}

customElements.define("kp-chart", TimeChart);

/** @returns {TimeChart} */
export const chart = () => h("kp-chart");

/**
 * Returns a point for each step of a range, with 0 where there is nothing: the API leaves those out.
 * @param {number} from @param {number} to @param {number} step
 * @param {Iterable<[number, number | null]>} found
 * @param {number | null} [missing]
 * @returns {Point[]}
 */
export function filled(from, to, step, found, missing = 0) {
  const sums = new Map();
  for (const [at, value] of found) {
    const slot = from + Math.floor((at - from) / step) * step;
    sums.set(slot, value === null ? sums.get(slot) ?? null : (sums.get(slot) ?? 0) + value);
  }
  /** @type {Point[]} */
  const points = [];
  for (let at = from; at < to; at += step) points.push([at, sums.has(at) ? sums.get(at) : missing]);
  return points;
}
