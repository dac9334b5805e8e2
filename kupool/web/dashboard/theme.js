// @ts-check
/** Light and dark: as the system says, or as the viewer chose here. */

const KEY = "kupool.theme";

export const THEMES = /** @type {const} */ (["auto", "light", "dark"]);

/** The theme that was chosen: auto, light or dark. */
export function theme() {
  return document.documentElement.dataset.theme ?? "auto";
}

/** @param {string} name */
export function chooseTheme(name) {
  const root = document.documentElement;
  if (name === "light" || name === "dark") root.dataset.theme = name;
  else delete root.dataset.theme;
  try {
    if (name === "auto") localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, name);
  } catch {
    // It holds for this visit.
  }
}
