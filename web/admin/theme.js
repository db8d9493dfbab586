// SPDX-License-Identifier: MIT
// Light, dark or as the system says; before the first paint, so that nothing flashes. No module for that reason.
"use strict";

(() => {
  const KEY = "tgg-admin-theme", NEXT = { auto: "dark", dark: "light", light: "auto" };
  let theme = "auto";
  try { theme = localStorage.getItem(KEY) ?? "auto"; } catch { /* storage may be forbidden */ }
  if (!Object.hasOwn(NEXT, theme)) theme = "auto";

  function apply() {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) {
      button.textContent = `◐ ${theme}`;
      button.setAttribute("aria-label", `Theme: ${theme}. Change to ${NEXT[theme]}`);
    }
    document.dispatchEvent(new Event("themechange"));
  }

  apply();
  document.addEventListener("DOMContentLoaded", () => {
    apply();
    document.getElementById("theme").addEventListener("click", () => {
      theme = NEXT[theme];
      try { localStorage.setItem(KEY, theme); } catch { /* then it holds for this page only */ }
      apply();
    });
  });
})();
