"use strict";
// In the head, so that a page does not open in one theme and turn to the other.
const THEME = "mer-bench-theme";

function storedTheme() {
  try {
    return localStorage.getItem(THEME);
  } catch {
    return null; // a page from disk may have no storage
  }
}

function setTheme(choice) {
  if (choice === "light" || choice === "dark") document.documentElement.dataset.theme = choice;
  else delete document.documentElement.dataset.theme;
  try {
    localStorage.setItem(THEME, choice);
  } catch {
    // then the choice lasts as long as the page is open
  }
}

if (["light", "dark"].includes(storedTheme())) document.documentElement.dataset.theme = storedTheme();

document.addEventListener("DOMContentLoaded", () => {
  const box = document.getElementById("theme");
  box.hidden = false;
  const chosen = document.documentElement.dataset.theme || "auto";
  for (const input of box.querySelectorAll("input")) {
    input.checked = input.value === chosen;
    input.addEventListener("change", () => setTheme(input.value));
  }
});
