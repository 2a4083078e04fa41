"use strict";
const body = document.querySelector("tbody");
const text = (row, column) => { const cell = row.cells[column]; return cell.dataset.key || cell.textContent.trim(); };
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const head = button.parentElement, up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const compare = (a, b) => text(a, head.cellIndex).localeCompare(text(b, head.cellIndex), "en", {numeric: true});
  body.append(...[...body.rows].sort((a, b) => up ? compare(a, b) : compare(b, a)));
});
const filter = document.querySelector("#filter");
filter.addEventListener("input", () => {
  const wanted = filter.value.toLowerCase().split(/\s+/);
  for (const row of body.rows) row.hidden = !wanted.every(word => row.textContent.toLowerCase().includes(word));
});
filter.closest("p").hidden = false;
