// @ts-check
/** A calendar of hours: a row for each day of the viewer's zone, a cell for each hour. */

import { h } from "./dom.js";
import { clock, number, weekday, zone } from "./format.js";
import { t } from "./i18n.js";

/**
 * Shows in which hours something was accepted, and how much.
 * @param {import("./chart.js").Point[]} points one for each hour
 */
export function calendar(points) {
  /** @type {Map<string, {at: number, cells: any[]}>} */
  const days = new Map();
  const most = Math.max(1, ...points.map(([, value]) => value ?? 0));
  const now = Date.now();
  for (const [at, value] of points) {
    const date = new Date(at);
    const key = date.toDateString();
    if (!days.has(key)) days.set(key, { at, cells: Array(24).fill(null) });
    // Where a clock goes back, an hour comes twice: both are in its cell.
    const cells = /** @type {any} */ (days.get(key)).cells;
    const before = cells[date.getHours()];
    cells[date.getHours()] = { at: before?.at ?? at, value: (before?.value ?? 0) + (value ?? 0) };
  }
  const heads = Array.from({ length: 24 }, (_, hour) => h("th", { scope: "col" }, hour % 3 === 0 ? String(hour).padStart(2, "0") : ""));
  const rows = [...days.values()].reverse().map((day) => h("tr", {}, h("th", { scope: "row" }, weekday(day.at)),
    day.cells.map((cell) => {
      if (!cell || cell.at > now) return h("td", { class: "none" });
      const level = cell.value ? Math.max(1, Math.ceil((cell.value / most) * 4)) : 0;
      const text = `${clock(cell.at)}: ${cell.value ? number(cell.value) : t("calendar.away")}`;
      return h("td", { class: `l${level}`, title: text }, h("span", { class: "hidden" }, text));
    })));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("box.calendar") },
    h("table", { class: "calendar" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, zone()), heads)), h("tbody", {}, rows)),
    h("p", { class: "legend" }, h("i", { class: "swatch l0" }), h("span", {}, t("calendar.away")),
      [1, 2, 3, 4].map((level) => h("i", { class: `swatch l${level}` })), h("span", {}, t("calendar.accepted"))));
}
