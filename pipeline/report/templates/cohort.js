"use strict";
const table = document.querySelector("table"), head = table.tHead.rows[0], body = table.tBodies[0], rows = [...body.rows];
const filter = document.querySelector("#filter"), shown = document.querySelector("#shown"), all = document.querySelector("#all");
const more = document.querySelector("#more");
const order = new Intl.Collator("en", {numeric: true}), tests = new Map();
const words = new Map(rows.map(row => [row, row.textContent.toLowerCase()]));
const values = new Map(rows.map(row => [row, JSON.parse(row.dataset.values || "[]")]));
const text = (row, column) => { const cell = row.cells[column]; return cell.dataset.key ?? cell.textContent.trim().replace(/^–$/, ""); };
const compare = (a, b) => isFinite(a) && isFinite(b) ? a - b : order.compare(a, b);

// so many rows are laid out at once: of thousands every change would take seconds
const PAGE = 200;
let limit = PAGE;
const show = () => {
  let count = 0;
  for (const row of body.rows) {
    const fits = [...tests.values()].every(test => test(row));
    if (fits) count += 1;
    row.hidden = !fits || count > limit;
  }
  shown.textContent = tests.size ? `${count} of ${rows.length}` : "";
  all.hidden = !tests.size;
  more.textContent = `The first ${limit} of ${count} cases are shown: show ${Math.min(PAGE, count - limit)} more`;
  more.parentElement.hidden = count <= limit;
};
const test = (name, wanted) => { wanted ? tests.set(name, wanted) : tests.delete(name); limit = PAGE; show(); };
more.addEventListener("click", () => { limit += PAGE; show(); });

const sort = (cell) => {
  const up = cell.getAttribute("aria-sort") !== "ascending", column = cell.cellIndex;
  for (const other of head.cells) other.removeAttribute("aria-sort");
  cell.setAttribute("aria-sort", up ? "ascending" : "descending");
  const keyed = [...body.rows].map(row => [text(row, column), row]);
  // what has no value stands last, whichever way
  keyed.sort(([a], [b]) => a === "" || b === "" ? (a === "") - (b === "") : up ? compare(a, b) : compare(b, a));
  body.append(...keyed.map(([, row]) => row));
  show();
};
head.addEventListener("click", event => { if (event.target.matches("button")) sort(event.target.closest("th")); });

// a number may be asked for as >3, <=2.5 or 1..2
const wish = (said, column) => {
  const wanted = said.trim().toLowerCase(), sign = wanted.match(/^([<>]=?|=)\s*(-?[\d.]+)$/), range = wanted.match(/^(-?[\d.]+)\.\.(-?[\d.]+)$/);
  const number = row => { const found = text(row, column); return found === "" ? NaN : parseFloat(found); };
  if (range) return row => number(row) >= +range[1] && number(row) <= +range[2];
  if (!sign) return row => row.cells[column].textContent.toLowerCase().includes(wanted);
  const limit = +sign[2], signs = {"<": x => x < limit, "<=": x => x <= limit, ">": x => x > limit, ">=": x => x >= limit, "=": x => x === limit};
  return row => signs[sign[1]](number(row));
};
const ask = cell => {
  const input = document.createElement("input");
  input.type = "search";
  input.placeholder = "filter";
  input.setAttribute("aria-label", `Filter ${cell.textContent}`);
  input.addEventListener("input", () => test(cell, input.value.trim() && wish(input.value, cell.cellIndex)));
  cell.append(input);
};
[...head.cells].forEach(ask);
filter.addEventListener("input", () => {
  const wanted = filter.value.toLowerCase().split(/\s+/);
  test("words", filter.value.trim() && (row => wanted.every(word => words.get(row).includes(word))));
});
all.addEventListener("click", () => {
  tests.clear();
  for (const input of document.querySelectorAll("input")) input.value = "";
  for (const bar of document.querySelectorAll(".chosen")) bar.classList.remove("chosen");
  limit = PAGE;
  show();
});

document.querySelectorAll(".measure").forEach((figure, index) => {
  const button = figure.querySelector("button"), of = row => values.get(row)[index];
  button.addEventListener("click", () => {
    const there = [...head.cells].find(cell => cell.dataset.measure === String(index));
    if (there) { table.scrollIntoView(); sort(there); return; }
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.dataset.measure = index;
    cell.append(button.cloneNode(true));
    head.append(cell);
    ask(cell);
    for (const row of rows) {
      const made = row.insertCell(), found = of(row);
      made.dataset.key = found ? found[0] : "";
      made.textContent = found ? found[0] : "–";
      made.className = found && found[1] ? "unusual" : "";
    }
    table.scrollIntoView();
  });
  figure.querySelector("svg").addEventListener("click", event => {
    const bar = event.target.closest(".space");
    const was = bar && bar.classList.contains("chosen");
    for (const other of figure.querySelectorAll(".chosen")) other.classList.remove("chosen");
    if (!bar || was) { test(figure, null); return; }
    bar.classList.add("chosen");
    const low = bar.dataset.low === "" ? -Infinity : +bar.dataset.low, high = bar.dataset.high === "" ? Infinity : +bar.dataset.high;
    test(figure, row => of(row) && of(row)[0] >= low && of(row)[0] < high);
    table.scrollIntoView();
  });
});

body.addEventListener("click", event => {
  const link = event.target.closest("tr").querySelector("a");
  if (link && !event.target.closest("a") && !String(getSelection())) link.click();
});
filter.closest("p").hidden = false;
show();
