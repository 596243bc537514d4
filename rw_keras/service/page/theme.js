/* Before the page is drawn: the colours that were chosen in this browser, or else those of the system. */
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try {
    chosen = localStorage.getItem("rw-keras-theme");
  } catch {
    // A browser that keeps nothing.
  }
  const isDark = () => (chosen === null ? system.matches : chosen === "dark");
  const apply = () => {
    if (chosen !== null) root.dataset.theme = chosen;
    document.getElementById("theme")?.setAttribute("aria-pressed", String(isDark()));
  };
  apply();
  system.addEventListener("change", apply);
  addEventListener("DOMContentLoaded", () => {
    apply();
    document.getElementById("theme").addEventListener("click", () => {
      chosen = isDark() ? "light" : "dark";
      try {
        localStorage.setItem("rw-keras-theme", chosen);
      } catch {
        // It lasts until the page is left.
      }
      apply();
    });
  });
})();
