"use strict";
// Tables sorted by their column heads (within each block of rows: only those compare), and verdicts filtered by their words.

function headButton(head, onPress) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", onPress);
}

// Ascending first, then descending; the direction now in force is in aria-sort, where screen readers and style sheet find it.
function turn(head) {
  const direction = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", direction);
  return direction === "ascending" ? 1 : -1;
}

// Numbers by size, texts by the alphabet; what is unknown comes last either way.
function compare(a, b, sign) {
  const [noA, noB] = [a === null || a === "", b === null || b === ""];
  if (noA || noB) return noA - noB;
  return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
}

function cellValue(row, column) {
  const raw = row.cells[column].dataset.value;
  if (raw === undefined || raw === "") return null;
  return raw.trim() !== "" && Number.isFinite(Number(raw)) ? Number(raw) : raw;
}

function makeSortable(table) {
  table.querySelectorAll("thead th").forEach((head, column) => headButton(head, () => {
    const sign = turn(head);
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => !row.classList.contains("block"));
      rows.sort((a, b) => compare(cellValue(a, column), cellValue(b, column), sign));
      body.append(...rows);
    }
  }));
}

function filterVerdicts(buttons) {
  const wanted = [...buttons].filter((button) => button.getAttribute("aria-pressed") === "true").map((button) => button.dataset.outcome);
  for (const row of document.querySelectorAll("#verdict-list tbody tr")) {
    row.hidden = wanted.length > 0 && !wanted.some((outcome) => JSON.parse(row.dataset.outcomes).includes(outcome));
  }
}

document.querySelectorAll("table[data-sortable]").forEach(makeSortable);
const outcomeButtons = document.querySelectorAll("button[data-outcome]");
for (const button of outcomeButtons) {
  button.disabled = false;
  button.addEventListener("click", () => {
    button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
    filterVerdicts(outcomeButtons);
  });
}
