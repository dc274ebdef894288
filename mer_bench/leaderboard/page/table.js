"use strict";
// Sorts and filters the table, and chooses its columns; the drawings hear of it by the event `rows`.
const scores = document.getElementById("scores");

function cellOf(row, key) {
  return row.cells[[...row.parentElement.previousElementSibling.rows[0].cells].findIndex((each) => each.dataset.column === key)];
}

function valueOf(row, place) {
  const value = row.cells[place].dataset.value;
  if (value === undefined || value === "") return null;
  return scores.tHead.rows[0].cells[place].classList.contains("number") ? Number(value) : value;
}

// Rows without a value stand last in either order; equals keep the order of the ranking.
function sortBy(place, order) {
  const body = scores.tBodies[0];
  const way = order === "ascending" ? 1 : -1;
  const found = [...body.rows].map((row) => ({ row, value: valueOf(row, place), start: Number(row.dataset.row) }));
  found.sort((a, b) => {
    if (a.value === null || b.value === null) return (a.value === null) - (b.value === null) || a.start - b.start;
    const differ = typeof a.value === "number" ? a.value - b.value : a.value.localeCompare(b.value, "en", { numeric: true });
    return way * differ || a.start - b.start;
  });
  body.append(...found.map((each) => each.row));
  for (const header of scores.tHead.rows[0].cells) header.removeAttribute("aria-sort");
  const header = scores.tHead.rows[0].cells[place];
  header.setAttribute("aria-sort", order);
  scores.classList.toggle("by-rank", header.dataset.column === "rank" && order === "ascending");
  tell(`sorted by ${header.textContent.trim()}, ${order}`);
}

function filter() {
  const read = (id) => document.getElementById(id)?.value ?? "";
  const words = read("filter-name").toLowerCase().split(/\s+/).filter(Boolean);
  const [setting, rank] = [read("filter-setting"), read("filter-rank")];
  for (const row of scores.tBodies[0].rows) {
    const names = ["label", "dataset", "modalities", "leader"].map((key) => cellOf(row, key)?.dataset.value ?? "").join(" ").toLowerCase();
    const stays =
      words.every((word) => names.includes(word)) &&
      (!setting || row.dataset.setting === setting) &&
      (!rank || (row.dataset.rank !== "" && Number(row.dataset.rank) <= Number(rank)));
    row.hidden = !stays;
  }
  tell("");
  document.dispatchEvent(new CustomEvent("rows"));
}

function tell(more) {
  const rows = [...scores.tBodies[0].rows];
  const shown = rows.filter((row) => !row.hidden);
  let last = null;
  for (const row of shown) {
    row.classList.toggle("group-start", last !== null && row.dataset.rank !== last);
    row.classList.toggle("group-same", row.dataset.rank === last);
    last = row.dataset.rank;
  }
  const count = shown.length === rows.length ? `${rows.length} rows` : `${shown.length} of ${rows.length} rows`;
  document.getElementById("shown").textContent = [rows.length === 1 ? "1 row" : count, more].filter(Boolean).join(", ");
}

// A column, or with `class` those of all classes.
function showColumn(key, shown) {
  const headers = [...scores.tHead.rows[0].cells];
  headers.forEach((header, place) => {
    const name = header.dataset.column;
    if (name !== key && !(key === "class" && name.startsWith("class-"))) return;
    header.hidden = !shown;
    for (const row of scores.tBodies[0].rows) row.cells[place].hidden = !shown;
  });
}

if (scores) {
  [...scores.tHead.rows[0].cells].forEach((header, place) => {
    header.querySelector("button").addEventListener("click", () => {
      const now = header.getAttribute("aria-sort");
      const first = header.dataset.first === "falls" ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      sortBy(place, now === first ? other : first);
    });
    if (header.dataset.away !== undefined) showColumn(header.dataset.column, false);
  });
  for (const id of ["filter-name", "filter-setting", "filter-rank"]) {
    document.getElementById(id)?.addEventListener("input", filter);
  }
  for (const box of document.querySelectorAll("input[data-column]")) {
    box.checked = box.defaultChecked; // a reload shows what the boxes say
    box.addEventListener("change", () => showColumn(box.dataset.column, box.checked));
  }
  document.getElementById("reset").addEventListener("click", () => {
    for (const id of ["filter-name", "filter-setting", "filter-rank"]) {
      const field = document.getElementById(id);
      if (field) field.value = "";
    }
    filter();
    const rank = [...scores.tHead.rows[0].cells].findIndex((each) => each.dataset.column === "rank");
    if (rank >= 0) sortBy(rank, "ascending");
    tell("");
  });
  if (scores.classList.contains("scores")) scores.classList.add("by-rank");
  filter();
}
