// @ts-check
/** Dialogs: a question before a change, and a login over whatever page is shown. */

import { ApiError, logIn, logInByToken, visitor } from "./api.js";
import { h, setText } from "./dom.js";
import { t } from "./i18n.js";
import { field } from "./view.js";

/**
 * Shows a modal dialog; Escape closes it, and the focus goes back to where it was.
 * @param {string} title @param {...any} children
 */
function modal(title, ...children) {
  const before = /** @type {HTMLElement | null} */ (document.activeElement);
  const dialog = h("dialog", { "aria-labelledby": "dialog-title" },
    h("h2", { id: "dialog-title" }, title), ...children);
  dialog.addEventListener("close", () => {
    dialog.remove();
    before?.focus?.();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/**
 * Asks before a change, makes it, and says what came of it. What was typed stays on the page if it
 * fails.
 * @param {Object} asked
 * @param {string} asked.title
 * @param {string} asked.text what will happen
 * @param {string} asked.action the text of the button
 * @param {boolean} [asked.danger]
 * @param {() => Promise<any>} asked.run
 * @param {(result: any) => string} asked.done
 * @returns {Promise<boolean>} whether it was made
 */
export function confirmed(asked) {
  return new Promise((resolve) => {
    let made = false;
    const problem = h("p", { class: "problem", role: "alert" });
    const go = h("button", { type: "submit", class: asked.danger ? "danger" : "primary" }, asked.action);
    const form = h("form", { method: "dialog" }, h("p", {}, asked.text), problem,
      h("div", { class: "buttons" },
        h("button", { type: "button", on: { click: () => dialog.close() } }, t("action.cancel")), go));
    form.addEventListener("submit", async (/** @type {Event} */ event) => {
      event.preventDefault();
      go.disabled = true;
      setText(problem, "");
      try {
        const result = await asked.run();
        made = true;
        dialog.close();
        toast(asked.done(result));
      } catch (error) {
        go.disabled = false;
        setText(problem, why(error));
        if (error instanceof ApiError && error.status === 401) {
          await askLogin(t(visitor.loggedIn ? "login.expired" : "login.needed"));
        }
      }
    });
    const dialog = modal(asked.title, form);
    dialog.addEventListener("close", () => resolve(made));
    go.focus();
  });
}

/** @param {unknown} error */
export function why(error) {
  if (error instanceof ApiError) {
    if (error.offline) return t("state.offline");
    if (error.missing) return t("state.missing");
    return error.message;
  }
  return String(error);
}

/** Says something for a few seconds. @param {string} text */
export function toast(text) {
  const place = document.getElementById("toasts");
  if (!place) return;
  const shown = h("p", { class: "toast" }, text);
  place.append(shown);
  setTimeout(() => shown.remove(), 6000);
}

/**
 * Returns a form for a login: a name and a password, or a token.
 * @param {() => void} done
 */
export function loginForm(done) {
  const problem = h("p", { class: "problem", role: "alert" });
  const name = h("input", { name: "username", autocomplete: "username", required: true, value: visitor.user });
  const password = h("input", { name: "password", type: "password", autocomplete: "current-password", required: true });
  const token = h("input", { name: "token", type: "password", autocomplete: "off", required: true, spellcheck: "false" });
  const form = (/** @type {string} */ kind, /** @type {any[]} */ fields, /** @type {() => Promise<any>} */ send) => {
    const button = h("button", { type: "submit", class: "primary" }, t("action.login"));
    return h("form", { class: "stack", "data-form": kind, on: { submit: async (/** @type {Event} */ event) => {
      event.preventDefault();
      button.disabled = true;
      setText(problem, "");
      try {
        await send();
        done();
      } catch (error) {
        setText(problem, why(error));
      } finally {
        button.disabled = false;
      }
    } } }, ...fields, h("div", { class: "buttons" }, button));
  };
  return h("div", { class: "login" }, problem,
    form("password", [field(t("login.name"), name), field(t("login.password"), password)],
      () => logIn(name.value, password.value)),
    h("details", {}, h("summary", {}, t("login.byToken")),
      form("token", [field(t("login.token"), token, t("login.tokenHint"))],
        () => logInByToken(token.value.trim()))));
}

/** @type {Promise<boolean> | null} */
let asking = null;

/**
 * Asks for a login over the page, whose state is kept; resolves to whether somebody logged in.
 * @param {string} reason
 */
export function askLogin(reason) {
  asking ??= new Promise((resolve) => {
    let done = false;
    const dialog = modal(t("action.login"), h("p", {}, reason), loginForm(() => {
      done = true;
      dialog.close();
    }), h("div", { class: "buttons" },
      h("button", { type: "button", on: { click: () => dialog.close() } }, t("action.cancel"))));
    dialog.addEventListener("close", () => {
      asking = null;
      resolve(done);
    });
    dialog.querySelector("input")?.focus();
  });
  return asking;
}
