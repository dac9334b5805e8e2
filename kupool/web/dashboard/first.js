// Runs before anything is painted, so that a page does not flash in the wrong colours. The rest of
// the code is in modules, which run later.
(() => {
  const root = document.documentElement;
  try {
    const theme = localStorage.getItem("kupool.theme");
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  } catch {
    // Storage is off: the system's colours are used.
  }
})();
