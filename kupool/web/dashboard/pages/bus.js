// @ts-check
/** The message bus: its topics, the latest messages with their steps, subscribers, and rooms. */

import { get } from "../api.js";
import { h } from "../dom.js";
import { bytes, clockSeconds, dayAndClock, moment, number } from "../format.js";
import { known, t } from "../i18n.js";
import { Figures } from "../parts.js";
import { table } from "../table.js";
import { Box, failed, loading, View } from "../view.js";

export default class Bus extends View {
  #figures = new Figures([["calls", t("bus.calls")], ["bytes", t("bus.bytes")], ["subscribers", t("bus.subscribers")]]);
  #topics = new Box(t("bus.topics"), { id: "bus-topics", wide: true });
  #messages = new Box(t("bus.messages"), { id: "bus-messages", wide: true });
  #subscribers = new Box(t("bus.subscribers"), { id: "bus-subscribers", wide: true });
  #rooms = new Box(t("bus.rooms"), { id: "rooms", wide: true });
  #trace = h("div", { "aria-live": "polite" });

  start() {
    const topics = table({ label: t("bus.topics"), size: 20, empty: t("bus.none"), id: (row) => row.topic,
      sorted: { key: "topic", order: "asc" }, columns: [
        { key: "topic", label: t("col.topic"), sort: true },
        { key: "counts", label: t("bus.outcomes"), show: (row) => counts(row.counts) },
        { key: "waiting", label: t("bus.waiting"), number: true, sort: true, show: (row) => number(row.waiting) },
        { key: "buffered", label: t("bus.buffered"), number: true, sort: true, show: (row) => number(row.buffered) }] });
    const messages = table({ label: t("bus.messages"), size: 20, empty: t("bus.quiet"), id: (row) => row.id,
      sorted: { key: "at", order: "desc" }, columns: [
        { key: "at", label: t("time"), sort: true, show: (row) => h("button", { type: "button", class: "plain",
          title: t("action.trace"), on: { click: () => this.#steps(row.id) } }, clockSeconds(row.at)) },
        { key: "topic", label: t("col.topic"), sort: true },
        { key: "model", label: t("bus.model"), wide: true },
        { key: "start", label: t("bus.start"), wide: true, show: (row) => h("code", {}, row.start) },
        { key: "size", label: t("col.size"), number: true, sort: true, show: (row) => bytes(row.size) },
        { key: "outcome", label: t("bus.outcome"), show: (row) => known(`outcome.${row.outcome}`, row.outcome) }] });
    const subscribers = table({ label: t("bus.subscribers"), size: 20, empty: t("bus.noSubscribers"), id: (row) => row.id, columns: [
      { key: "id", label: t("col.id"), show: (row) => h("code", {}, row.id) },
      { key: "since", label: t("col.since"), sort: true, show: (row) => dayAndClock(row.since) },
      { key: "topics", label: t("col.topic"), show: (row) => row.topics.join(", ") },
      { key: "unanswered", label: t("bus.unanswered"), number: true, sort: true, show: (row) => number(row.unanswered) }] });
    const rooms = table({ label: t("bus.rooms"), size: 20, empty: t("rooms.none"), id: (row) => row.room, columns: [
      { key: "room", label: t("rooms.name"), sort: true },
      { key: "members", label: t("rooms.members"), number: true, sort: true, show: (row) => number(row.members) },
      { key: "online", label: t("rooms.online"), number: true, sort: true, show: (row) => number(row.online) }] });
    this.replaceChildren(h("h1", {}, t("page.bus")), this.#figures.element,
      h("div", { class: "boxes" }, this.#topics.element, this.#messages.element, this.#subscribers.element, this.#rooms.element));
    this.every(3000, () => this.#topics.load(() => get("/bus/status", {}, this.signal), (told) => {
      this.#figures.set("calls", number(told.calls));
      this.#figures.set("bytes", bytes(told.calls_bytes));
      this.#figures.set("subscribers", number(told.subscriber_count));
      this.#topics.show(topics);
      topics.show(told.topics);
      this.#messages.show(messages, this.#trace);
      messages.show(told.topics.flatMap((/** @type {any} */ topic) => topic.recent.map((/** @type {any} */ one) => ({ ...one, topic: topic.topic }))));
      this.#subscribers.show(subscribers);
      subscribers.show(told.subscribers);
    }, [this.#messages, this.#subscribers]));
    this.every(5000, () => this.#rooms.load(() => get("/api/rooms", {}, this.signal), (told) => {
      this.#rooms.show(rooms);
      rooms.show(told.rooms);
    }));
  }

  /** @param {string} id the id of a message */
  async #steps(id) {
    this.#trace.replaceChildren(loading());
    try {
      const told = await get(`/bus/trace/${encodeURIComponent(id)}`, {}, this.signal);
      this.#trace.replaceChildren(h("h3", {}, t("bus.trace", { id })), h("ol", { class: "steps" }, told.steps.map((/** @type {any} */ step) =>
        h("li", { class: "done" }, h("strong", {}, known(`outcome.${step.event}`, step.event)), h("time", {}, moment(step.at)), h("p", {}, step.subscriber ?? "")))));
    } catch (error) {
      this.#trace.replaceChildren(failed(error));
    }
  }
}

/** @param {Record<string, number>} found */
function counts(found) {
  return Object.entries(found).map(([name, count]) => `${known(`outcome.${name}`, name)} ${number(count)}`).join(" · ") || "–";
}

customElements.define("kp-bus", Bus);
