"use strict";
// The list of runs: searched, filtered, sorted, and shown a page at a time, so that thousands stay quick.
// What is chosen is kept in the address after #runs?, so a view can be linked to.

const PAGE = 50;
const FILTERS = ["model", "data", "method", "seed", "scale", "status"];
const { columns, words, rows } = JSON.parse(document.getElementById("run-data").textContent);
const place = Object.fromEntries(columns.map((column, index) => [column.key, index]));
const all = rows.map((row) => ({ values: columns.map((column, index) => (column.kind === "text" ? words[row[index]] : row[index])), page: row[columns.length] }));
for (const run of all) run.text = run.values.filter((value, index) => columns[index].kind === "text").join(" ").toLowerCase();

const state = { q: "", keys: "", sort: "", page: 0 };
const element = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en");

function shown(value, kind) {
  if (value === null || value === "") return "–";
  if (kind === "count") return whole.format(value);
  if (kind === "percent") return `${value.toFixed(2)} %`;
  if (kind === "times") return `${value.toFixed(2)}×`;
  if (kind === "seconds") return value < 60 ? `${value.toFixed(1)} s` : value < 3600 ? `${(value / 60).toFixed(1)} min` : `${(value / 3600).toFixed(2)} h`;
  return String(value);
}

function chosen() {
  const asked = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  const keys = state.keys ? state.keys.split(",") : null;
  const filters = FILTERS.filter((key) => state[key]).map((key) => [place[key], state[key]]);
  return all.filter((run) => (!keys || keys.includes(run.values[place.key]))
    && filters.every(([index, wanted]) => String(run.values[index]) === wanted) && asked.every((word) => run.text.includes(word)));
}

function sorted(list) {
  if (!state.sort) return list;
  const index = place[state.sort.replace("-", "")];
  const sign = state.sort.startsWith("-") ? -1 : 1;
  return [...list].sort((a, b) => compare(a.values[index], b.values[index], sign));
}

function rowOf(run) {
  const row = document.createElement("tr");
  columns.forEach((column, index) => {
    const cell = row.insertCell();
    const text = shown(run.values[index], column.kind);
    if (column.kind !== "text") cell.className = "number";
    if (column.key !== "key") { cell.textContent = text; return; }
    const link = document.createElement("a");
    link.href = `runs/${run.page}.html`;
    link.textContent = text;
    cell.append(link);
  });
  return row;
}

function show() {
  const list = sorted(chosen());
  const pages = Math.max(1, Math.ceil(list.length / PAGE));
  state.page = Math.min(Math.max(state.page, 0), pages - 1);
  const first = state.page * PAGE;
  element("run-rows").replaceChildren(...list.slice(first, first + PAGE).map(rowOf));
  element("run-count").textContent = list.length ? `${whole.format(list.length)} of ${whole.format(all.length)} runs; ${first + 1}–${Math.min(first + PAGE, list.length)} shown` : `none of ${whole.format(all.length)} runs`;
  element("pager").hidden = pages === 1;
  element("earlier").disabled = state.page === 0;
  element("later").disabled = state.page >= pages - 1;
  element("only-keys").hidden = !state.keys;
  for (const head of element("run-heads").cells) {
    const key = head.dataset.key;
    if (state.sort.replace("-", "") === key) head.setAttribute("aria-sort", state.sort.startsWith("-") ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
}

function change(changes) {
  Object.assign(state, { page: 0 }, changes);
  const kept = Object.entries(state).filter(([, value]) => value);
  history.replaceState(null, "", `#runs${kept.length ? `?${new URLSearchParams(kept)}` : ""}`);
  show();
}

function readAddress() {
  const [where, query = ""] = location.hash.slice(1).split("?");
  if (where !== "runs") return;
  const asked = new URLSearchParams(query);
  for (const key of ["q", "keys", "sort", ...FILTERS]) state[key] = asked.get(key) || "";
  if (!(state.sort.replace("-", "") in place)) state.sort = "";
  state.page = Number(asked.get("page")) || 0;
  for (const key of ["q", ...FILTERS]) element(`filter-${key}`).value = state[key];
  if (query) element("runs").scrollIntoView();
}

function offer(key) {
  const select = element(`filter-${key}`);
  const values = [...new Set(all.map((run) => run.values[place[key]]))].sort((a, b) => compare(a, b, 1));
  for (const value of values) select.add(new Option(String(value), String(value)));
  select.addEventListener("change", () => change({ [key]: select.value }));
}

for (const column of columns) {
  const head = document.createElement("th");
  head.scope = "col";
  head.dataset.key = column.key;
  head.textContent = column.title;
  if (column.kind !== "text") head.className = "number";
  headButton(head, () => change({ sort: state.sort === column.key ? `-${column.key}` : column.key }));
  element("run-heads").append(head);
}
FILTERS.forEach(offer);
element("filter-q").addEventListener("input", (event) => change({ q: event.target.value }));
element("filters").addEventListener("submit", (event) => event.preventDefault());
element("filters").addEventListener("reset", () => change(Object.fromEntries(["q", "keys", ...FILTERS].map((key) => [key, ""]))));
element("earlier").addEventListener("click", () => change({ page: state.page - 1 }));
element("later").addEventListener("click", () => change({ page: state.page + 1 }));
element("every-key").addEventListener("click", () => change({ keys: "" }));
addEventListener("hashchange", () => { readAddress(); show(); });
readAddress();
show();
document.documentElement.dataset.ready = String(Math.round(performance.now()));
