// Shows what /topology.json tells, once a second. Whatever is shown is put in as text, never
// as markup: names are chosen by others.
"use strict";

const EVERY = 1000;
const REMEMBERED = 120;

const at = (id) => document.getElementById(id);
const columns = [
  { title: "Name", of: (e) => e.name },
  { title: "Network", of: (e) => e.network },
  { title: "Address", of: (e) => e.addresses.join(", ") },
  { title: "In, bit/s", of: (e) => e.rate.in, show: si },
  { title: "Out, bit/s", of: (e) => e.rate.out, show: si },
  { title: "In, bytes", of: (e) => e.rx.bytes, show: si },
  { title: "Out, bytes", of: (e) => e.tx.bytes, show: si },
  { title: "Drops", of: (e) => e.dropped, show: si },
];
let sort = { column: 3, down: true };
let chosen = null; // id of the endpoint in the detail
let paused = false;
let last = null; // { time, bytes: Map(id => [rx, tx]) }
let endpoints = [];
const remembered = new Map(); // id => [{ in, out }], the oldest first; "" is all of them

function si(value) {
  let prefix = "";
  for (const next of ["k", "M", "G", "T", "P", "E"]) {
    if (value < 999.5) break;
    value /= 1000;
    prefix = next;
  }
  const whole = prefix === "" && Number.isInteger(value);
  return value.toFixed(whole || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2) + prefix;
}

function element(name, text, classes) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (classes) made.className = classes;
  return made;
}

function pairs(list, entries) {
  list.replaceChildren(...entries.map(([term, text, classes]) => {
    const pair = element("div");
    pair.append(element("dt", term), element("dd", text, classes));
    return pair;
  }));
}

function take(topology, now) {
  const bytes = new Map();
  const rate = (id, index, count) => {
    const before = last && last.bytes.get(id);
    return before ? Math.max(0, count - before[index]) * 8000 / (now - last.time) : 0;
  };
  endpoints = topology.networks.flatMap((network) => network.endpoints.map((e) => {
    bytes.set(e.id, [e.rx.bytes, e.tx.bytes]);
    return {
      ...e,
      network: network.name,
      rate: { in: rate(e.id, 0, e.rx.bytes), out: rate(e.id, 1, e.tx.bytes) },
      dropped: Object.values(e.drops).reduce((sum, count) => sum + count, 0),
    };
  }));
  if (last) {
    remember("", sum(endpoints.map((e) => e.rate)));
    for (const e of endpoints) remember(e.id, e.rate);
  }
  for (const id of remembered.keys()) if (id !== "" && !bytes.has(id)) remembered.delete(id);
  last = { time: now, bytes };
}

function sum(rates) {
  return rates.reduce((a, b) => ({ in: a.in + b.in, out: a.out + b.out }), { in: 0, out: 0 });
}

function remember(id, rate) {
  const rates = remembered.get(id) || [];
  rates.push(rate);
  if (rates.length > REMEMBERED) rates.shift();
  remembered.set(id, rates);
}

function chart(figure, rates, what) {
  const most = Math.max(1, ...rates.map((rate) => Math.max(rate.in, rate.out)));
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${REMEMBERED - 1} 100`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  const now = rates.at(-1) || { in: 0, out: 0 };
  const text = `${what}: in ${si(now.in)}bit/s (solid), out ${si(now.out)}bit/s (dashed), `
    + `at most ${si(most)}bit/s in ${rates.length} s`;
  svg.setAttribute("aria-label", text);
  for (const direction of ["in", "out"]) {
    const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    line.setAttribute("class", direction);
    line.setAttribute("points", rates.map((rate, i) =>
      `${REMEMBERED - rates.length + i},${(98 - rate[direction] / most * 92).toFixed(2)}`).join(" "));
    svg.append(line);
  }
  figure.replaceChildren(svg, element("figcaption", text));
}

function show(topology) {
  const all = remembered.get("") || [];
  const now = all.at(-1) || { in: 0, out: 0 };
  const dropped = endpoints.reduce((total, e) => total + e.dropped, 0);
  const elsewhere = topology.parents.flatMap((parent) => Object.values(parent.drops));
  pairs(at("totals"), [
    ["In", si(now.in) + "bit/s"], ["Out", si(now.out) + "bit/s"],
    ["Endpoints", String(endpoints.length)],
    ["Dropped", si(dropped), dropped ? "bad" : ""],
    ["Dropped on parents", si(elsewhere.reduce((total, count) => total + count, 0))],
  ]);
  chart(at("traffic"), all, "All endpoints");
  at("networks").replaceChildren(...topology.networks.map((network) => {
    const item = element("li");
    const rates = sum(endpoints.filter((e) => e.network === network.name).map((e) => e.rate));
    const kind = [network.mode, network.internal ? "internal" : null, ...network.subnets];
    item.append(
      element("strong", network.name),
      element("span", kind.filter(Boolean).join(", ")),
      element("span", `on ${network.parent}${network.parent_up ? "" : ", which is down"}`,
        network.parent_up ? "" : "bad"),
      element("span", `${network.endpoints.length} endpoints, in ${si(rates.in)}bit/s, out ${si(rates.out)}bit/s`),
    );
    return item;
  }));
  table();
  detail();
}

function head() {
  document.querySelector("thead tr").replaceChildren(...columns.map((column, index) => {
    const cell = element("th", undefined, column.show ? "number" : "");
    const button = element("button", column.title);
    button.type = "button";
    cell.scope = "col";
    if (index === sort.column) {
      cell.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
      button.textContent += sort.down ? " ↓" : " ↑";
    }
    button.addEventListener("click", () => {
      sort = { column: index, down: index === sort.column ? !sort.down : Boolean(column.show) };
      head();
      table();
      document.querySelectorAll("th button")[index].focus();
    });
    cell.append(button);
    return cell;
  }));
}

// Rows are kept and changed, so that the keyboard's focus stays where it is.
const rows = new Map();

function table() {
  const word = at("filter").value.toLowerCase();
  const meant = endpoints.filter((e) =>
    [e.name, e.network, ...e.addresses].some((text) => text.toLowerCase().includes(word)));
  const { of } = columns[sort.column];
  meant.sort((a, b) => (of(a) < of(b) ? -1 : of(a) > of(b) ? 1 : 0) * (sort.down ? -1 : 1));
  const kept = new Set(meant.map((e) => e.id));
  for (const [id, row] of rows) {
    if (!kept.has(id)) {
      row.remove();
      rows.delete(id);
    }
  }
  const body = document.querySelector("tbody");
  meant.forEach((e, place) => {
    let row = rows.get(e.id);
    if (!row) {
      row = element("tr");
      for (const column of columns) row.append(element("td", undefined, column.show ? "number" : ""));
      const button = element("button");
      button.type = "button";
      button.addEventListener("click", () => choose(e.id));
      row.cells[0].append(button);
      rows.set(e.id, row);
    }
    columns.forEach((column, index) => {
      const text = (column.show || String)(column.of(e));
      const target = index === 0 ? row.cells[0].firstChild : row.cells[index];
      if (target.textContent !== text) target.textContent = text;
    });
    row.classList.toggle("chosen", e.id === chosen);
    if (body.children[place] !== row) move(body, row, place);
  });
  at("none").hidden = meant.length > 0;
}

// Moving an element takes the focus from it.
function move(body, row, place) {
  const focused = row.contains(document.activeElement) ? document.activeElement : null;
  body.insertBefore(row, body.children[place] || null);
  if (focused) focused.focus({ preventScroll: true });
}

function choose(id) {
  const before = chosen;
  chosen = id;
  table();
  detail();
  if (id) at("detail-title").focus();
  else if (rows.has(before)) rows.get(before).cells[0].firstChild.focus();
}

function detail() {
  const e = endpoints.find((endpoint) => endpoint.id === chosen);
  at("detail").hidden = !e;
  if (!e) return;
  at("detail-title").textContent = e.name;
  pairs(at("about"), [
    ["Id", e.id.slice(0, 12)], ["Network", e.network], ["Addresses", e.addresses.join(", ")],
    ["In", `${e.rx.packets} packets, ${si(e.rx.bytes)}B`],
    ["Out", `${e.tx.packets} packets, ${si(e.tx.bytes)}B`],
  ]);
  chart(at("chart"), remembered.get(e.id) || [], e.name);
  const drops = Object.entries(e.drops);
  pairs(at("drops"), drops.length ? drops.map(([why, count]) => [why, String(count), "bad"]) : [["none", ""]]);
}

function setPaused(on) {
  paused = on;
  at("pause").setAttribute("aria-pressed", String(on));
  at("pause").textContent = on ? "Go on" : "Pause";
  if (on) tell("Paused");
}

function tell(text, bad) {
  const state = at("state");
  if (state.textContent !== text) state.textContent = text;
  state.classList.toggle("bad", Boolean(bad));
}

async function turn() {
  if (!paused && !document.hidden) {
    try {
      const response = await fetch("topology.json");
      if (!response.ok) throw new Error(await response.text());
      const topology = await response.json();
      take(topology, performance.now());
      show(topology);
      tell("Live");
    } catch (error) {
      tell(`No answer from the daemon: ${error.message}`, true);
    }
  }
  setTimeout(turn, EVERY);
}

at("pause").addEventListener("click", () => setPaused(!paused));
at("close").addEventListener("click", () => choose(null));
at("filter").addEventListener("input", table);
document.addEventListener("keydown", (event) => {
  const typing = document.activeElement === at("filter");
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "Escape" && chosen) choose(null);
  else if (event.key === "/" && !typing) {
    event.preventDefault();
    at("filter").focus();
  } else if (event.key === "p" && !typing) setPaused(!paused);
});
head();
turn();
