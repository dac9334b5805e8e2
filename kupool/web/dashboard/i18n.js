// @ts-check
/** The texts of the page, in the viewer's language. */

import { setLocale } from "./format.js";

/** The languages, as they call themselves. */
export const LANGUAGES = { en: "English", zh: "中文" };

const KEY = "kupool.language";

/** @type {Record<string, string>} */
let texts = {};
let current = "en";

/** Tells of a change of the language, by the event `change`. */
export const languageChanges = new EventTarget();

/** The language that the viewer chose here, or else the first of the browser's that there is. */
export function preferredLanguage() {
  let chosen = null;
  try {
    chosen = localStorage.getItem(KEY);
  } catch {
    // Storage is off: the browser's languages decide.
  }
  const asked = [chosen, ...navigator.languages].map((name) => (name ?? "").slice(0, 2));
  return asked.find((name) => name in LANGUAGES) ?? "en";
}

/** @param {string} language */
export async function useLanguage(language) {
  const table = await (language === "zh" ? import("./texts_zh.js") : import("./texts_en.js"));
  texts = table.default;
  current = language;
  setLocale(language);
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
}

/** Changes the language, and keeps that for the next visit. @param {string} language */
export async function chooseLanguage(language) {
  await useLanguage(language);
  try {
    localStorage.setItem(KEY, language);
  } catch {
    // It holds for this visit.
  }
  languageChanges.dispatchEvent(new Event("change"));
}

/** The language of the page. */
export const language = () => current;

/**
 * Returns a text; `{name}` in it becomes a value. A key without a text is shown itself.
 * @param {string} key
 * @param {Record<string, string | number>} [values]
 */
export function t(key, values = {}) {
  return (texts[key] ?? key).replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
}

/**
 * Returns a text, or else what the server says.
 * @param {string} key @param {string} otherwise
 */
export function known(key, otherwise) {
  return texts[key] ?? otherwise;
}
