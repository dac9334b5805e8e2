// @ts-check
/** A submission: from its user and minute, or its id, to every step that it went. */

import { get, visitor } from "../api.js";
import { h } from "../dom.js";
import { clockSeconds, localField, moment, rfc3339, zone } from "../format.js";
import { known, t } from "../i18n.js";
import { traceLink, who } from "../parts.js";
import { link, route } from "../router.js";
import { table } from "../table.js";
import { Box, empty, field, View } from "../view.js";

export default class Trace extends View {
  start() {
    const { query } = route();
    const user = h("input", { name: "user", required: true, value: query.user ?? (visitor.isOperator ? "" : visitor.user), autocomplete: "off", spellcheck: "false" });
    const at = h("input", { name: "at", type: "datetime-local", required: true, value: localField(query.at ? Date.parse(query.at) : Date.now()) });
    const id = h("input", { name: "id", required: true, value: query.id ?? "", autocomplete: "off", spellcheck: "false" });
    const go = (/** @type {() => Record<string, any>} */ make) => (/** @type {Event} */ event) => {
      event.preventDefault();
      const next = link(["trace"], make());
      if (next === location.hash) this.start();
      else location.hash = next;
    };
    const found = new Box(t(query.id ? "box.trace" : "trace.found"), { id: "trace", wide: true });
    this.replaceChildren(h("h1", {}, t("page.trace")),
      h("div", { class: "pair" },
        h("form", { class: "filters", "data-form": "minute", on: { submit: go(() => ({ user: user.value.trim(), at: rfc3339(new Date(at.value).getTime()) })) } },
          field(t("trace.user"), user), field(t("trace.minute", { zone: zone() }), at),
          h("button", { type: "submit", class: "primary" }, t("action.find"))),
        h("form", { class: "filters", "data-form": "id", on: { submit: go(() => ({ id: id.value.trim() })) } },
          field(t("trace.id"), id), h("button", { type: "submit" }, t("action.find")))),
      found.element);
    if (query.id) {
      found.load(() => get("/api/trace", { id: query.id }, this.signal), (told) => found.show(...this.#steps(told)));
    } else if (query.user && query.at) {
      found.load(() => get("/api/trace", { user: query.user, at: query.at }, this.signal), (told) => found.show(this.#list(told)));
    } else {
      found.show(empty(t("trace.how")));
    }
  }

  /** @param {any} told the submissions of a minute */
  #list(told) {
    const rows = Array.isArray(told) ? told : told.submissions ?? [];
    const list = table({ label: t("trace.found"), id: (row) => row.id, size: 60, empty: t("trace.none"), columns: [
      { key: "at", label: t("time"), show: (row) => traceLink(row.id, clockSeconds(row.at)) },
      { key: "username", label: t("col.username"), show: (row) => row.username },
      { key: "job_id", label: t("col.job"), number: true, show: (row) => String(row.job_id ?? "–") },
      { key: "client_nonce", label: t("col.nonce"), wide: true, show: (row) => h("code", {}, row.client_nonce ?? "–") },
      { key: "id", label: t("col.id"), wide: true, show: (row) => h("code", {}, row.id) }] });
    list.show(rows);
    return list;
  }

  /** @param {any} told */
  #steps(told) {
    const facts = [[t("col.username"), who(told.username)], [t("time"), moment(told.at)], [t("col.id"), h("code", {}, told.id)],
      [t("col.job"), String(told.job_id)], [t("col.nonce"), h("code", {}, told.client_nonce)], [t("col.peer"), told.peer],
      [t("col.session"), told.session ? h("code", {}, told.session) : null], [t("col.offset"), told.offset === undefined ? null : String(told.offset)]];
    return [h("p", { class: told.counted ? "verdict good" : "verdict warn" }, t(told.counted ? "trace.counted" : "trace.notCounted")),
      h("dl", { class: "facts" }, facts.filter(([, value]) => value !== null && value !== undefined && value !== "")
        .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
      h("ol", { class: "steps" }, (told.steps ?? []).map((/** @type {any} */ step) => h("li", { class: step.at || told.counted ? "done" : "open" },
        h("strong", {}, known(`step.${step.name}`, step.name)), h("time", {}, step.at ? moment(step.at) : "–"), h("p", {}, step.text))))];
  }
}

customElements.define("kp-trace", Trace);
