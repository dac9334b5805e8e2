// @ts-check
/** Topics of the log, consumer groups with their lag, and dead letters, which can be sent back. */

import { get, post } from "../api.js";
import { confirmed } from "../dialogs.js";
import { h } from "../dom.js";
import { bytes, duration, milliseconds, moment, number } from "../format.js";
import { t } from "../i18n.js";
import { link, route } from "../router.js";
import { table } from "../table.js";
import { Box, empty, View } from "../view.js";

/** The most groups whose lag is asked for. */
const GROUPS = 50;

export default class Log extends View {
  start() {
    const [topic] = route().parts;
    if (topic) this.#topic(topic);
    else this.#all();
  }

  #all() {
    const topicsBox = new Box(t("log.topics"), { id: "topics", wide: true });
    const groupsBox = new Box(t("log.groups"), { id: "groups", wide: true });
    const topics = table({ label: t("log.topics"), size: 50, empty: t("log.none"), id: (row) => row.topic,
      sorted: { key: "topic", order: "asc" }, columns: [
        { key: "topic", label: t("col.topic"), sort: true, show: (row) => h("a", { href: link(["log", row.topic]) }, row.topic) },
        { key: "partitions", label: t("log.partitions"), number: true, sort: true, show: (row) => number(row.partitions) },
        { key: "dead_letters", label: t("log.dead"), number: true, sort: true, show: (row) => (row.dead_letters
          ? h("a", { href: link(["log", row.topic]), class: "tag bad" }, number(row.dead_letters)) : "0") }] });
    const groups = table({ label: t("log.groups"), size: 50, empty: t("log.noGroups"), id: (row) => JSON.stringify([row.group, row.topic, row.partition]),
      sorted: { key: "lag", order: "desc" }, columns: [
        { key: "group", label: t("log.group"), sort: true },
        { key: "topic", label: t("col.topic"), sort: true, show: (row) => (row.topic ? `${row.topic} / ${row.partition}` : "–") },
        { key: "owner", label: t("log.owner"), wide: true, show: (row) => (row.owner ? h("code", {}, row.owner) : h("span", { class: "tag warn" }, t("log.unowned"))) },
        { key: "committed", label: t("log.committed"), number: true, wide: true, show: (row) => (row.committed === null ? "–" : String(row.committed)) },
        { key: "lag", label: t("log.lag"), number: true, sort: true, show: (row) => number(row.lag) },
        { key: "lag_ms", label: t("log.lagTime"), number: true, sort: true, show: (row) => (row.lag_ms === null || row.lag_ms === undefined ? "–"
          : row.lag_ms >= 1000 ? duration(row.lag_ms / 1000) : milliseconds(row.lag_ms)) }] });
    this.replaceChildren(h("h1", {}, t("page.log")), h("div", { class: "boxes" }, topicsBox.element, groupsBox.element));
    this.every(5000, () => topicsBox.load(() => get("/api/topic/list", {}, this.signal), (told) => {
      topicsBox.show(topics);
      topics.show(told.topics);
    }));
    this.every(5000, () => groupsBox.load(async () => {
      const { groups: names } = await get("/api/group/list", {}, this.signal);
      return Promise.all(names.slice(0, GROUPS).map((/** @type {string} */ group) => get("/api/group/describe", { group }, this.signal)));
    }, (found) => {
      groupsBox.show(groups);
      groups.show(found.flatMap((/** @type {any} */ group) => group.positions.map((/** @type {any} */ one) => ({ ...one, group: group.group }))));
    }));
  }

  /** @param {string} topic */
  #topic(topic) {
    const parts = new Box(t("log.partitions"), { id: "partitions" });
    const settings = new Box(t("log.settings"), { id: "settings" });
    const deadBox = new Box(t("log.dead"), { id: "dead", wide: true, actions: [
      h("button", { type: "button", on: { click: () => redrive(null) } }, t("log.redriveAll"))] });
    const partitions = table({ label: t("log.partitions"), size: 50, id: (row) => String(row.partition), columns: [
      { key: "partition", label: t("log.partition"), number: true },
      { key: "low", label: t("log.first"), number: true, show: (row) => String(row.low) },
      { key: "high", label: t("log.next"), number: true, show: (row) => String(row.high) },
      { key: "size", label: t("col.size"), number: true, sort: true, show: (row) => bytes(row.size) }] });
    const dead = table({ label: t("log.dead"), size: 50, empty: t("log.noDead"), id: (row) => `${row.partition}/${row.offset}`, columns: [
      { key: "place", label: t("log.place"), show: (row) => `${row.source.partition} / ${row.source.offset}` },
      { key: "reason", label: t("col.reason") },
      { key: "group", label: t("log.group"), wide: true },
      { key: "attempts", label: t("log.attempts"), number: true, wide: true, show: (row) => number(row.attempts) },
      { key: "value", label: t("log.value"), wide: true, show: (row) => h("code", {}, String(row.record?.value ?? "").slice(0, 80)) },
      { key: "time", label: t("time"), wide: true, show: (row) => moment(row.record?.timestamp) },
      { key: "redrive", label: "", show: (row) => h("button", { type: "button", on: { click: () => redrive(row) } }, t("log.redrive")) }] });
    const load = () => deadBox.load(() => get("/api/log/dead", { topic, limit: 200 }, this.signal), (told) => {
      deadBox.show(dead);
      dead.show(told.dead);
    });
    const redrive = async (/** @type {any} */ row) => {
      const place = row ? { partition: row.partition, offset: row.offset } : {};
      const made = await confirmed({ title: t(row ? "log.redrive" : "log.redriveAll"),
        text: t(row ? "log.redriveText" : "log.redriveAllText", { topic }), action: t("log.redrive"),
        run: () => post("/api/log/redrive", { topic, ...place }), done: () => t("log.redriven") });
      if (made) await load();
    };
    this.replaceChildren(h("p", { class: "crumbs" }, h("a", { href: link(["log"]) }, t("page.log"))), h("h1", { class: "name" }, topic),
      h("div", { class: "boxes" }, parts.element, settings.element, deadBox.element));
    this.every(5000, () => parts.load(() => get("/api/topic/describe", { topic }, this.signal), (told) => {
      parts.show(partitions);
      partitions.show(told.partitions);
      const shown = Object.entries(told.settings).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, setting(name, value))));
      settings.show(shown.length ? h("dl", { class: "facts" }, shown) : empty());
    }));
    this.every(10_000, load);
  }
}

/** @param {string} name @param {any} value */
function setting(name, value) {
  if (/_time$/.test(name)) return value ? duration(value) : t("limits.off");
  if (/_bytes$|^max_record$|_threshold$/.test(name)) return value ? bytes(value) : t("limits.off");
  return String(value);
}

customElements.define("kp-log", Log);
