// @ts-check
/** Limits with their use, the load of live channels, and what a stop would wait for. */

import { get } from "../api.js";
import { h } from "../dom.js";
import { bytes, milliseconds, number } from "../format.js";
import { known, t } from "../i18n.js";
import { Figures, reasons } from "../parts.js";
import { table } from "../table.js";
import { Box, View } from "../view.js";

export default class Limits extends View {
  start() {
    const box = new Box(t("limits.use"), { id: "limits", wide: true });
    const liveBox = new Box(t("limits.live"), { id: "live" });
    const refused = new Box(t("limits.refused"), { id: "refused" });
    const work = new Box(t("limits.work"), { id: "work" });
    const limits = table({ label: t("limits.use"), id: (row) => row.name, sorted: { key: "share", order: "desc" }, columns: [
      { key: "name", label: t("limits.name"), sort: true, show: (row) => h("span", {}, known(`limit.${row.name}`, row.name), " ", h("code", { class: "dim setting" }, row.setting ? `--${row.setting}` : "")) },
      { key: "used", label: t("limits.used"), number: true, sort: true, show: (row) => amount(row, row.used) },
      { key: "limit", label: t("limits.limit"), number: true, sort: true, show: (row) => (row.limit ? amount(row, row.limit) : t("limits.off")) },
      { key: "share", label: t("limits.share"), number: true, sort: true, by: share, show: (row) => (row.limit ? meter(share(row)) : "–") }] });
    const lists = new Figures([["state", t("live.state")], ["lag", t("limits.lag")], ["behind", t("limits.behind")], ["queued", t("limits.queued")], ["clients", t("limits.clients")], ["publications", t("limits.publications")]]);
    const stop = new Figures([["connections", t("limit.connections")], ["batches", t("limit.batches")], ["depth", t("limits.depth")], ["spooled", t("limits.spooled")], ["dead", t("log.dead")]]);
    this.replaceChildren(h("h1", {}, t("page.limits")), h("div", { class: "boxes" }, box.element, work.element, liveBox.element, refused.element));
    this.every(3000, () => box.load(() => get("/api/limits", {}, this.signal), (told) => {
      box.show(limits);
      limits.show(told.limits);
    }));
    this.every(3000, () => work.load(() => get("/shutdown/status", {}, this.signal), (told) => {
      work.show(stop.element);
      stop.set("connections", number(told.connections));
      stop.set("batches", number(told.batches_in_flight));
      stop.set("depth", number(told.log_depth));
      stop.set("spooled", number(told.spooled));
      stop.set("dead", number(told.dead_letters));
    }));
    this.every(3000, () => liveBox.load(() => get("/api/live/status", {}, this.signal), (told) => {
      liveBox.show(lists.element);
      refused.show(reasons({ ...told.refused, ...told.dropped }, t("limits.noRefused")));
      lists.set("state", known(`live.load.${told.state}`, told.state));
      lists.set("lag", milliseconds(told.lag_ms));
      lists.set("behind", number(told.clients_behind));
      lists.set("queued", number(Object.values(told.queued).reduce((sum, one) => sum + Number(one), 0)));
      lists.set("clients", number(told.clients));
      lists.set("publications", number(told.publications));
    }, [refused]));
  }
}

/** @param {any} row */
const share = (row) => (row.limit ? row.used / row.limit : -1);

/** @param {any} row @param {number} value */
const amount = (row, value) => (row.unit === "bytes" ? bytes(value) : number(value));

/** @param {number} part */
function meter(part) {
  const tone = part >= 0.9 ? "bad" : part >= 0.7 ? "warn" : "";
  return h("span", { class: `share ${tone}` }, h("meter", { min: 0, max: 1, value: Math.min(1, part), "aria-hidden": "true" }), `${number(part * 100, part < 0.1 ? 1 : 0)} %`);
}

customElements.define("kp-limits", Limits);
