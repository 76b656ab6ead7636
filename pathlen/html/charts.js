/* The three charts, drawn by Plotly: path lengths, contributions, widths. They follow the theme, and
   a click on a layer in them shows it in the graph. */
"use strict";

/* Above this many layers or lengths, bars are too thin to be seen: a stepped line stands for them. */
const MOST_BARS = 400;
/* Below an axis of more layers than this there is no room for their names. */
const MOST_NAMES = 40;

/* A list of what is offered, since what Plotly offers by itself includes sending charts away. */
const CONFIG = {
  displaylogo: false,
  responsive: true,
  plotlyServerURL: "",
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
};

/** Unpack the library, which the page holds compressed; the browser does it beside the scripts. */
pathlen.unpackCharts = async function () {
  const packed = atob(pathlen.byId("plotly").textContent);
  const bytes = new Uint8Array(packed.length);
  for (let place = 0; place < packed.length; place++) bytes[place] = packed.charCodeAt(place);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
};

/** Run the unpacked library, which defines `Plotly`. */
pathlen.runCharts = function (code) {
  const script = document.createElement("script");
  script.textContent = code;
  document.head.append(script);
};

pathlen.drawCharts = function (data, show) {
  const rows = activationRows(data);
  const charts = [
    ["lengths", lengthsChart(data)],
    ["contributions", contributionsChart(data, rows)],
    ["widths", widthsChart(data, rows)],
  ];
  for (const [id, chart] of charts) {
    const place = pathlen.byId(id);
    if (!chart) continue;
    Plotly.react(place, chart.traces, styled(chart), CONFIG);
    place.setAttribute("role", "figure");
    place.setAttribute("aria-label", chart.text);
    pathlen.byId(`${id}-text`).textContent = chart.text;
    if (!chart.layers || place.dataset.listens) continue;
    place.dataset.listens = "yes";
    place.on("plotly_click", (event) => show(rows[event.points[0].pointIndex]));
  }
};

/** A name as Plotly shows it as it is: it takes some tags in texts for formatting. */
const plain = (name) => name.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

/** The layers where a nonlinearity is or was. */
function activationRows(data) {
  return [...data.layers.activation.keys()].filter((at) => data.layers.activation[at]);
}

/** Colours, fonts and margins of the theme. */
function styled(chart) {
  const [soft, faint] = [pathlen.colour("soft"), pathlen.colour("faint")];
  const axis = { gridcolor: faint, zerolinecolor: faint, linecolor: pathlen.colour("line"), automargin: true };
  const title = (text) => ({ text, standoff: 10, font: { size: 13 } });
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: soft, size: 12.5, family: getComputedStyle(document.body).fontFamily },
    height: 340,
    margin: { l: 60, r: 16, t: 36, b: 48 },
    bargap: 0.15,
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: soft, activecolor: pathlen.colour("text") },
    hoverlabel: {
      bgcolor: pathlen.colour("raised"),
      bordercolor: pathlen.colour("line"),
      font: { color: pathlen.colour("text") },
      namelength: -1,
    },
    hovermode: "x unified",
    ...chart.layout,
    xaxis: { ...axis, ...chart.layout.xaxis, title: title(chart.x) },
    yaxis: { ...axis, rangemode: "tozero", ...chart.layout.yaxis, title: title(chart.y) },
  };
}

/** One series: bars, or a stepped line with its ground filled where there are too many. */
function series(name, colour, x, y, more) {
  const base = { name, x, y, ...more };
  if (x.length <= MOST_BARS) return { ...base, type: "bar", marker: { color: colour, line: { width: 0 } } };
  return {
    ...base,
    type: "scatter",
    mode: "lines",
    line: { color: colour, width: 1.5, shape: "hvh" },
    fill: more.stackgroup ? "tonexty" : "tozeroy",
    fillcolor: colour + (more.stackgroup ? "" : "40"),
  };
}

function lengthsChart(data) {
  const found = data.distribution;
  if (found.absent) {
    pathlen.byId("lengths-text").textContent = `Not drawn: ${found.absent}`;
    pathlen.byId("lengths").hidden = true;
    return null;
  }
  const traces = data.weightings.map((name) => {
    const shares = found.share[name];
    return series(
      pathlen.WEIGHTINGS[name].label,
      pathlen.colour(name),
      shares.map((_, place) => found.start + place),
      shares,
      { hovertemplate: "%{y:.3~%}" },
    );
  });
  const means = data.weightings.map((name) => ({
    type: "line",
    xref: "x",
    yref: "paper",
    x0: data.averages[name],
    x1: data.averages[name],
    y0: 0,
    y1: 1,
    line: { color: pathlen.colour(name), width: 2, dash: "dot" },
  }));
  const parts = data.weightings.map((name) => {
    const [low, middle, high] = found.quantiles[name];
    const mean = pathlen.number(data.averages[name]);
    const { label } = pathlen.WEIGHTINGS[name];
    return `${label}: mean ${mean}, median ${middle}, nine tenths from ${low} to ${high}`;
  });
  return {
    traces,
    layout: { barmode: "group", shapes: means, xaxis: commonRange(found), yaxis: { tickformat: "~%" } },
    x: "active nonlinearities on a path",
    y: "share",
    text: `Share of the paths of each length. With ${parts.join("; with ")}. Dotted lines are the means.`,
  };
}

/** From the first length to the last that are not too rare to be seen. */
function commonRange(found) {
  const shares = Object.values(found.share);
  const common = shares[0].map((_, place) => Math.max(...shares.map((one) => one[place])) > 1e-4);
  const range = [found.start + common.indexOf(true) - 0.7, found.start + common.lastIndexOf(true) + 0.7];
  return range[1] - range[0] < 12 ? { range, dtick: 1 } : { range };
}

/** A layout with names below the axis where there is room for them, and else numbers. */
function layerLayout(data, rows) {
  const xaxis = { range: [-0.7, rows.length - 0.3] };
  if (rows.length > MOST_NAMES) return { xaxis };
  const names = rows.map((at) => plain(pathlen.shortened(data.layers.name[at], 22)));
  const ticks = { tickmode: "array", tickvals: rows.map((_, place) => place), ticktext: names, tickangle: -50 };
  return { height: 420, xaxis: { ...xaxis, ...ticks } };
}

/** Show the names of layers when the first series is hovered, where the axis has none. */
function nameWhenHovered(trace, data, rows) {
  if (rows.length <= MOST_NAMES) return;
  trace.customdata = rows.map((at) => plain(data.layers.name[at]));
  trace.hovertemplate += "<br>%{customdata}";
}

function contributionsChart(data, rows) {
  if (!rows.length) return nothing("contributions");
  const traces = data.weightings.map((name) =>
    series(
      pathlen.WEIGHTINGS[name].label,
      pathlen.colour(name),
      rows.map((_, place) => place),
      rows.map((at) => data.layers.contribution[name][at]),
      { hovertemplate: "%{y:.4~f}" },
    ),
  );
  nameWhenHovered(traces[0], data, rows);
  const first = data.weightings.at(-1) === "magnitude" ? "normalized" : data.weightings.at(-1);
  const top = rows.reduce((best, at) =>
    data.layers.contribution[first][at] > data.layers.contribution[first][best] ? at : best,
  );
  return {
    traces,
    layers: true,
    layout: { ...layerLayout(data, rows), barmode: "group" },
    x: rows.length > MOST_NAMES ? "activation layer, from input to output" : "",
    y: "part of the average",
    text:
      `What each of ${pathlen.plural(rows.length, "activation layer")} adds to the averages; ` +
      `together they are the average. The largest part under ` +
      `\u201c${pathlen.WEIGHTINGS[first].label}\u201d is that of ${data.layers.name[top]}, ` +
      `${pathlen.number(data.layers.contribution[first][top])}. A click shows the layer in the graph.`,
  };
}

function widthsChart(data, rows) {
  if (!rows.length) return nothing("widths");
  const { units, active, dead } = data.layers;
  const x = rows.map((_, place) => place);
  const columns = {
    active: rows.map((at) => active[at]),
    linear: rows.map((at) => units[at] - active[at]),
    dead: rows.map((at) => dead[at]),
  };
  const present = pathlen.STATES.filter(
    (state) => state === "active" || columns[state].some((value) => value > 0),
  );
  const traces = present.map((state) =>
    series(state, pathlen.colour(state), x, columns[state], {
      stackgroup: x.length > MOST_BARS ? "all" : undefined,
      hovertemplate: "%{y:,d}",
    }),
  );
  nameWhenHovered(traces[0], data, rows);
  const totals = pathlen.STATES.map((state) => columns[state].reduce((sum, value) => sum + value, 0));
  return {
    traces,
    layers: true,
    layout: {
      ...layerLayout(data, rows),
      barmode: "stack",
      bargap: x.length > 60 ? 0 : 0.15,
      shapes: [
        {
          type: "line",
          xref: "paper",
          x0: 0,
          x1: 1,
          y0: data.effective_width,
          y1: data.effective_width,
          line: { color: pathlen.colour("text"), width: 1.5, dash: "dash" },
        },
      ],
    },
    x: rows.length > MOST_NAMES ? "activation layer, from input to output" : "",
    y: "channels",
    text:
      `Channels of each activation layer: ${pathlen.statesText(totals)} in all. ` +
      `The active ones are the core that is left of the network. ` +
      `The dashed line is the effective width, ${pathlen.number(data.effective_width)}.`,
  };
}

function nothing(id) {
  pathlen.byId(`${id}-text`).textContent = "There is no activation layer: every path has length 0 there.";
  pathlen.byId(id).hidden = true;
  return null;
}
