// @ts-check
/** The frame of the page: navigation, language, theme, the state of the connection, and the pages. */

import { learnRoutes, refreshLogin, visitor, whoAmI } from "./api.js";
import { askLogin } from "./dialogs.js";
import { h, setText } from "./dom.js";
import { chooseLanguage, LANGUAGES, language, languageChanges, preferredLanguage, t, useLanguage } from "./i18n.js";
import { LiveStream } from "./live.js";
import { link, route } from "./router.js";
import { chooseTheme, theme, THEMES } from "./theme.js";
import { failed, loading } from "./view.js";

/** The pages in the order of the navigation, with their modules and who needs them. */
const PAGES = [
  { name: "overview", load: () => import("./pages/overview.js"), who: "all" },
  { name: "workers", load: () => import("./pages/workers.js"), who: "all" },
  { name: "trace", load: () => import("./pages/trace.js"), who: "all" },
  { name: "bus", load: () => import("./pages/bus.js"), who: "operator" },
  { name: "log", load: () => import("./pages/log.js"), who: "operator" },
  { name: "limits", load: () => import("./pages/limits.js"), who: "operator" },
  { name: "admin", load: () => import("./pages/admin.js"), who: "operator" },
  { name: "me", load: () => import("./pages/me.js"), who: "all" },
  { name: "worker", load: () => import("./pages/worker.js"), who: "link" },
];

/** Milliseconds until it is looked again whether there is a login to renew: they last 1 min or more. */
const RENEWAL = 25_000;

/**
 * The live channels that pages share; they are opened again for another viewer.
 * @type {{stream: LiveStream}}
 */
export const live = { stream: new LiveStream([]) };

class Frame {
  /** @type {any} */ #outlet = h("main", { id: "main", tabindex: "-1" });
  /** @type {any} */ #nav = h("nav", { id: "nav" });
  /** @type {any} */ #state = h("span", { class: "live", role: "status" });
  /** @type {any} */ #user = h("a", { class: "user", href: "#/me" });
  #shown = 0;

  build() {
    const menu = h("button", { type: "button", class: "menu", "aria-expanded": "false", "aria-controls": "nav",
      on: { click: () => this.#toggle(menu.getAttribute("aria-expanded") !== "true") } }, t("nav.menu"));
    const languages = h("select", { "aria-label": t("nav.language"), id: "language",
      on: { change: (/** @type {any} */ event) => chooseLanguage(event.target.value) } },
      Object.entries(LANGUAGES).map(([name, text]) => h("option", { value: name, selected: name === language(), lang: name }, text)));
    const themes = h("select", { "aria-label": t("nav.theme"), id: "theme",
      on: { change: (/** @type {any} */ event) => chooseTheme(event.target.value) } },
      THEMES.map((name) => h("option", { value: name, selected: name === theme() }, t(`theme.${name}`))));
    this.#nav.setAttribute("aria-label", t("nav.label"));
    const app = /** @type {HTMLElement} */ (document.getElementById("app"));
    app.replaceChildren(
      h("a", { class: "skip", href: "#main", on: { click: (/** @type {Event} */ event) => {
        event.preventDefault();
        this.#outlet.focus();
      } } }, t("nav.skip")),
      h("header", { class: "top" }, menu,
        h("a", { class: "brand", href: "#/" }, "KuPool"), this.#state,
        h("div", { class: "tools" }, languages, themes, this.#user)),
      h("div", { class: "columns" }, this.#nav, this.#outlet),
      h("div", { id: "toasts", role: "status", "aria-live": "polite" }));
    this.menu = menu;
    this.navigation();
    this.state();
  }

  /** @param {boolean} open */
  #toggle(open) {
    this.menu?.setAttribute("aria-expanded", String(open));
    this.#nav.classList.toggle("open", open);
  }

  navigation() {
    const { page } = route();
    const here = page === "worker" ? "workers" : page;
    const all = PAGES.filter(({ who }) => who === "all" || (who === "operator" && visitor.isOperator));
    this.#nav.replaceChildren(h("ul", {}, all.map(({ name }) => h("li", {},
      h("a", { href: link([name]), "aria-current": name === here ? "page" : null }, t(`page.${name}`))))));
    setText(this.#user, visitor.loggedIn ? visitor.user : t("action.login"));
  }

  state() {
    const { state } = live.stream;
    this.#state.className = `live ${state}`;
    setText(this.#state, t(`live.${state}`));
  }

  async go() {
    const serial = ++this.#shown;
    const { page } = route();
    const found = PAGES.find(({ name }) => name === page);
    this.#toggle(false);
    this.navigation();
    document.title = `${t(found ? `page.${page}` : "page.none")} · KuPool`;
    if (!found) {
      this.#outlet.replaceChildren(h("h1", {}, t("page.none")), h("p", {}, h("a", { href: "#/" }, t("page.overview"))));
      return;
    }
    const waiting = setTimeout(() => this.#outlet.replaceChildren(loading()), 150);
    try {
      const { default: Page } = await found.load();
      if (serial === this.#shown) {
        this.#outlet.replaceChildren(new Page());
        window.scrollTo(0, 0);
      }
    } catch (error) {
      // After an update of the daemon the modules of this page are gone.
      if (serial === this.#shown) {
        this.#outlet.replaceChildren(failed(error, () => location.reload()));
      }
    } finally {
      clearTimeout(waiting);
    }
  }
}

/** @param {Frame} frame */
function listen(frame) {
  live.stream.stop();
  const more = visitor.isOperator ? ["server", "events"] : [];
  const own = visitor.role === "worker" && visitor.user ? [`users.${visitor.user}`] : [];
  live.stream = new LiveStream(["pool", "jobs", ...more, ...own], {}, ["pool", "jobs"]);
  live.stream.addEventListener("state", () => frame.state());
  live.stream.addEventListener("resumed", () => learnRoutes().catch(() => {}));
  live.stream.start();
  frame.state();
}

/** Renews a login with a password at half of its time, as long as the page is open. */
async function renew() {
  const seconds = await refreshLogin();
  setTimeout(renew, seconds ? seconds * 500 : RENEWAL);
}

async function main() {
  await useLanguage(preferredLanguage());
  visitor.restore();
  const frame = new Frame();
  frame.build();
  for (;;) {
    try {
      await learnRoutes();
      await whoAmI();
      break;
    } catch {
      live.stream.state = "offline";
      frame.state();
      await new Promise((done) => setTimeout(done, 2000));
    }
  }
  listen(frame);
  await frame.go();
  window.addEventListener("hashchange", () => frame.go());
  languageChanges.addEventListener("change", () => {
    frame.build();
    frame.go();
    document.getElementById("language")?.focus();
  });
  visitor.addEventListener("change", () => {
    listen(frame);
    frame.navigation();
    // A dialog is over a page whose input is kept.
    if (!document.querySelector("dialog[open]")) frame.go();
  });
  visitor.addEventListener("expired", async () => {
    if (!await askLogin(t("login.expired"))) await whoAmI().catch(() => {});
  });
  renew();
}

main();
