// Tables sort by a click on a column's title, and show the rows that hold all words of a search box; charts are drawn from the Vega-Lite specifications in the page.
"use strict";

function sortTable(th) {
  const table = th.closest("table"), body = table.tBodies[0], column = th.cellIndex;
  const first = th.dataset.first || "descending";
  const old = th.getAttribute("aria-sort");
  const next = !old ? first : old === "ascending" ? "descending" : "ascending";
  const sign = next === "ascending" ? 1 : -1;
  const key = row => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
  const rows = [...body.rows].map((row, i) => ({ row, i, text: key(row), number: key(row) === "" ? NaN : Number(key(row)) }));
  const numeric = rows.every(r => r.text === "" || !Number.isNaN(r.number));
  rows.sort((a, b) => {
    if ((a.text === "") !== (b.text === "")) return a.text === "" ? 1 : -1;  // undefined numbers stay at the end
    const order = numeric ? a.number - b.number : a.text.localeCompare(b.text);
    return sign * order || a.i - b.i;
  });
  for (const other of th.parentNode.cells) other.removeAttribute("aria-sort");
  th.setAttribute("aria-sort", next);
  body.append(...rows.map(r => r.row));
}

for (const th of document.querySelectorAll("table.sortable thead th")) {
  th.tabIndex = 0;
  th.addEventListener("click", () => sortTable(th));
  th.addEventListener("keydown", event => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sortTable(th); }
  });
}

for (const box of document.querySelectorAll("[data-filter]")) {
  const rows = [...document.querySelectorAll(`#${box.dataset.filter} tbody tr`)];
  const texts = rows.map(row => row.textContent.toLowerCase());
  const shown = document.querySelector(`[data-shown=${box.dataset.filter}]`);
  const filter = () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    rows.forEach((row, i) => { row.hidden = !words.every(word => texts[i].includes(word)); count += !row.hidden; });
    shown.textContent = words.length ? `${count} of ${rows.length}` : "";
  };
  box.addEventListener("input", filter);
  filter();
}

const tip = document.createElement("div");
tip.id = "tip";
document.body.append(tip);

function showTip(handler, event, item, value) {
  if (value == null || value === "") { tip.style.display = "none"; return; }
  const table = document.createElement("table");
  for (const [name, text] of Object.entries(typeof value === "object" ? value : { "": value })) {
    const row = table.insertRow();
    row.insertCell().textContent = name;
    row.insertCell().textContent = text;
  }
  tip.replaceChildren(table);
  tip.style.display = "block";
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - box.width - 6)) + "px";
  tip.style.top = (event.clientY + 16 + box.height > innerHeight ? event.clientY - box.height - 10 : event.clientY + 16) + "px";
}

async function draw(div) {
  if (div.dataset.drawn) return;
  div.dataset.drawn = "yes";
  const lite = JSON.parse(document.getElementById(div.dataset.spec).textContent);
  const view = new vega.View(vega.parse(vegaLite.compile(lite).spec), { renderer: "svg", container: div, hover: true });
  await view.tooltip(showTip).runAsync();
}

function drawAllIn(node) {
  return Promise.all([...node.querySelectorAll(".chart")].filter(d => !d.closest("details:not([open])")).map(draw));
}

for (const details of document.querySelectorAll("details")) {
  details.addEventListener("toggle", () => { if (details.open) drawAllIn(details); });
}
drawAllIn(document).then(() => { document.documentElement.dataset.ready = "yes"; });
