/* Start the page: numbers first, then the graph, then the charts, which take longest. */
"use strict";

const THEMES = ["auto", "light", "dark"];

function start() {
  const library = pathlen.unpackCharts();
  const data = JSON.parse(pathlen.byId("data").textContent);
  pathlen.byId("title").textContent = data.title;
  drawNumbers(data);
  drawTrace(data);
  drawLegend(data);
  const view = new pathlen.GraphView(pathlen.byId("graph"), data);
  const show = (layer) => {
    view.reveal(layer);
    pathlen.byId("graph-heading").scrollIntoView({ block: "start" });
  };
  const table = new pathlen.LayerTable(data, show);
  pathlen.view = view;
  connectTools(view, data);
  connectSearch(view, table);
  const redraw = () => window.Plotly && pathlen.drawCharts(data, show);
  connectTheme(redraw);
  pathlen.byId("footer").textContent = `Made by pathlen ${data.version}.`;
  performance.mark("graph-drawn");
  library.then((code) => {
    pathlen.runCharts(code);
    redraw();
    performance.mark("charts-drawn");
    document.documentElement.dataset.ready = "yes";
  }, tellOfCharts);
}

/** An old browser cannot unpack the library: all but the charts is there all the same. */
function tellOfCharts(error) {
  for (const id of ["lengths", "contributions", "widths"]) {
    pathlen.byId(`${id}-text`).textContent = `Not drawn, for this browser cannot unpack the charts: ${error}`;
    pathlen.byId(id).hidden = true;
  }
}

function drawNumbers(data) {
  for (const { label, value, about } of data.headline) {
    const size = value.length > 14 ? "value long" : "value";
    pathlen.byId("numbers").append(
      pathlen.element(
        "div",
        {},
        pathlen.element("dt", {}, label),
        pathlen.element("dd", { class: size }, value),
        pathlen.element("dd", { class: "about" }, about),
      ),
    );
  }
}

const STATUS = {
  exact: "every connection is known exactly",
  bound: "some connections are an upper bound: the graph holds all true ones and may hold more",
  opaque: "some operations could not be looked into",
};

function drawTrace(data) {
  const { status, causes, tracer, backend, seconds } = data.trace;
  const stages = Object.entries(seconds).map(([stage, value]) => `${stage} ${value.toFixed(3)} s`);
  const where = [
    tracer ? `traced by the ${tracer}` : "a graph made by hand",
    `counted by the backend ${backend}` + (data.trace.exact ? " in integers and fractions" : ""),
    ...stages,
  ];
  const place = pathlen.byId("trace");
  place.append(
    pathlen.element(
      "p",
      {},
      pathlen.element("span", { class: `badge ${status}` }, status),
      ` ${STATUS[status]}; ${where.join("; ")}.`,
    ),
  );
  if (causes.length) place.append(list(causes));
  if (data.dead.length) {
    const number = data.dead.reduce((sum, row) => sum + row.dead, 0);
    const rows = data.dead.map(
      (row) => `${row.layer}: ${pathlen.count(row.dead)} of ${pathlen.count(row.units)}`,
    );
    const title = `${pathlen.plural(number, "dead unit")}, cut off by weights of 0`;
    const summary = pathlen.element("summary", {}, title);
    place.append(pathlen.element("details", {}, summary, list(rows)));
  }
}

const list = (lines) => pathlen.element("ul", {}, ...lines.map((line) => pathlen.element("li", {}, line)));

function drawLegend(data) {
  const sample = (draw) => pathlen.shape("svg", { width: 26, height: 12 }, draw);
  const place = pathlen.byId("legend");
  const add = (mark, text) => place.append(pathlen.element("span", {}, mark, text));
  pathlen.STATES.forEach((state, index) => {
    if (state === "dead" && !data.dead.length) return;
    add(sample(pathlen.strip([0, 1, 2].map((at) => +(at === index)), 1, 1, 24, 10)), `${state} channels`);
  });
  const line = pathlen.shape("path", { d: "M0 6H26", stroke: "var(--skip)", "stroke-width": 2 });
  add(sample(line), "skip connection (wider: more paths)");
  const bar = pathlen.shape("rect", { id: "legend-bar", y: 4, width: 26, height: 4 });
  add(sample(bar), "contribution: a layer\u2019s to the largest, a module\u2019s to the whole");
}

function connectTools(view, data) {
  const select = pathlen.byId("weighting");
  for (const name of data.weightings)
    select.append(pathlen.element("option", { value: name }, pathlen.WEIGHTINGS[name].label));
  const weigh = () => {
    view.setWeighting(select.value);
    pathlen.byId("legend-bar").setAttribute("class", `part ${select.value}`);
  };
  select.value = view.weighting;
  select.addEventListener("change", weigh);
  weigh();
  const clicks = {
    fold: () => view.foldAll(),
    level: () => view.unfoldLevel(),
    unfold: () => view.unfoldAll(),
    in: () => view.zoom(1.25),
    out: () => view.zoom(0.8),
    fit: () => view.fit(),
  };
  for (const [id, act] of Object.entries(clicks)) pathlen.byId(id).addEventListener("click", act);
}

function connectSearch(view, table) {
  const input = pathlen.byId("search");
  const found = pathlen.byId("found");
  const tell = (at) => {
    const count = view.matched.length;
    if (!input.value.trim()) found.textContent = "";
    else if (!count) found.textContent = "nothing found";
    else found.textContent = (at < 0 ? "" : `${at + 1} of `) + pathlen.plural(count, "layer");
  };
  const step = (by) => tell(view.step(by));
  input.addEventListener("input", () => {
    view.search(input.value);
    table.filter(input.value.trim() ? view.matched : null);
    tell(-1);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    step(event.shiftKey ? -1 : 1);
  });
  pathlen.byId("next").addEventListener("click", () => step(1));
  pathlen.byId("previous").addEventListener("click", () => step(-1));
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.closest("input, select, textarea")) return;
    event.preventDefault();
    input.focus();
    input.select();
  });
}

/** Light, dark, or what the system asks for; kept for the next time where the browser allows it. */
function connectTheme(redraw) {
  const button = pathlen.byId("theme");
  let theme = "auto";
  const set = (name) => {
    theme = name;
    if (name === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    button.textContent = `Theme: ${name}`;
    redraw();
  };
  let storage = null;
  try {
    storage = window.localStorage;
  } catch {
    storage = null; // some browsers refuse it to files; then every visit starts with "auto"
  }
  const kept = storage && storage.getItem("pathlen-theme");
  set(THEMES.includes(kept) ? kept : "auto");
  button.addEventListener("click", () => {
    set(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]);
    if (storage) storage.setItem("pathlen-theme", theme);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

start();
