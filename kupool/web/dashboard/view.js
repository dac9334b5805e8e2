// @ts-check
/** What pages are made of: a view that ends what it started, and boxes with all their states. */

import { ApiError } from "./api.js";
import { clockSeconds } from "./format.js";
import { h, setText } from "./dom.js";
import { t } from "./i18n.js";

/** A page, or a part of one; what it started ends with it. */
export class View extends HTMLElement {
  #ended = new AbortController();

  /** Ends the requests and listeners of the view. */
  get signal() {
    return this.#ended.signal;
  }

  connectedCallback() {
    this.#ended = new AbortController();
    this.start();
  }

  disconnectedCallback() {
    this.#ended.abort();
  }

  /** Builds the view. */
  start() {}

  /**
   * Calls a function now, and again that many milliseconds after it has finished, while the page
   * can be seen.
   * @param {number} ms @param {() => any} work
   */
  every(ms, work) {
    const { signal } = this;
    const run = async () => {
      if (signal.aborted) return;
      try {
        if (!document.hidden) await work();
      } catch (error) {
        // One failure must not end it: the next time may be better.
        if (!signal.aborted) console.warn("A part of the page could not be renewed", error);
      }
      if (!signal.aborted) setTimeout(run, ms);
    };
    run();
  }

  /** @param {EventTarget} target @param {string} type @param {(event: any) => any} listener */
  hear(target, type, listener) {
    target.addEventListener(type, listener, { signal: this.signal });
  }
}

/** @param {string} kind @param {string} text @param {...any} more */
function state(kind, text, ...more) {
  return h("div", { class: `state ${kind}` }, h("p", {}, text), ...more);
}

export const loading = () => state("loading", t("state.loading"));
/** @param {string} [text] */
export const empty = (text) => state("empty", text ?? t("state.empty"));

/**
 * Says what went wrong, and what can be done about it.
 * @param {unknown} error @param {() => void} [again]
 */
export function failed(error, again) {
  const retry = again
    ? h("button", { type: "button", on: { click: again } }, t("action.retry")) : null;
  if (!(error instanceof ApiError)) {
    console.error(error);
    return state("error", t("state.error", { text: String(error) }), retry);
  }
  if (error.missing) return state("missing", t("state.missing"), h("code", {}, error.path));
  if (error.offline) return state("offline", t("state.offline"), retry);
  if (error.refused) {
    return state("refused", t("state.refused"), h("p", { class: "dim" }, error.message),
      h("a", { class: "button", href: "#/me" }, t("action.login")));
  }
  return state("error", t("state.error", { text: error.message }), retry);
}

/** A titled part of a page, which loads what it shows. */
export class Box {
  #shows = false;
  #stale = h("span", { class: "stale", hidden: true });

  /**
   * @param {string} title shown to screen readers alone where the box is `bare`
   * @param {{id?: string, wide?: boolean, bare?: boolean, note?: string, actions?: any[]}} [options]
   */
  constructor(title, options = {}) {
    this.body = h("div", { class: "box-body" }, loading());
    const id = `box-${options.id ?? title.replace(/\W+/g, "-")}`;
    this.note = h("span", { class: "note" }, options.note ?? "");
    this.element = h("section", {
      class: options.wide ? "box wide" : "box", "aria-labelledby": id, "data-box": options.id,
    },
      h("header", { class: options.bare ? "hidden" : null }, h("h2", { id }, title), this.note, this.#stale,
        h("div", { class: "actions" }, options.actions ?? [])),
      this.body);
  }

  /** @param {...any} children */
  show(...children) {
    this.#shows = true;
    this.#stale.hidden = true;
    if (children.length !== this.body.childNodes.length
        || children.some((child, at) => child !== this.body.childNodes[at])) {
      this.body.replaceChildren(...children);
    }
  }

  /**
   * Loads data and shows it. What is shown stays after a failure, and says since when it is old.
   * @template T
   * @param {() => Promise<T>} fetch
   * @param {(data: T) => any} render shows the data, by {@link Box#show}
   * @param {Box[]} [others] further boxes that `render` fills, and that have nothing without it
   */
  async load(fetch, render, others = []) {
    try {
      const data = await fetch();
      render(data);
      this.#stale.hidden = true;
    } catch (error) {
      if (error instanceof DOMException && error.name === "AbortError") return;
      const kept = this.#shows && error instanceof ApiError && !error.refused && !error.missing;
      if (kept) {
        if (this.#stale.hidden) setText(this.#stale, t("state.stale", { time: clockSeconds(Date.now()) }));
        this.#stale.hidden = false;
        return;
      }
      for (const other of others) other.#fail(error);
      this.#fail(error, () => {
        for (const box of [this, ...others]) box.body.replaceChildren(loading());
        this.load(fetch, render, others);
      });
    }
  }

  /** @param {unknown} error @param {() => void} [again] */
  #fail(error, again) {
    this.#shows = false;
    this.body.replaceChildren(failed(error, again));
  }
}

/**
 * Returns a label with its field.
 * @param {string} label @param {HTMLElement} control @param {string} [hint]
 */
export function field(label, control, hint) {
  return h("label", { class: "field" }, h("span", {}, label), control,
    hint ? h("small", {}, hint) : null);
}

/**
 * Returns a choice of one of several, as buttons.
 * @param {string} label @param {[string, string][]} options values with their texts
 * @param {string} value @param {(value: string) => void} chosen
 */
export function choice(label, options, value, chosen) {
  const buttons = options.map(([name, text]) => h("button", {
    type: "button", "aria-pressed": String(name === value), "data-value": name,
    on: { click: () => {
      for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.value === name));
      chosen(name);
    } },
  }, text));
  return h("div", { class: "choice", role: "group", "aria-label": label }, buttons);
}

/** Waits until there were no further calls for a while. @param {number} ms @param {(...a: any[]) => void} work */
export function calm(ms, work) {
  /** @type {any} */
  let timer;
  return (/** @type {any[]} */ ...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...values), ms);
  };
}

/** Calls at once, and then at most once in a while. @param {number} ms @param {() => void} work */
export function atMostEvery(ms, work) {
  let [last, timer] = [-Infinity, 0];
  return () => {
    const wait = last + ms - performance.now();
    if (timer) return;
    timer = window.setTimeout(() => {
      timer = 0;
      last = performance.now();
      work();
    }, Math.max(0, wait));
  };
}
