/* The pieces of the graph as SVG: a box with its strip and its bar, a frame, an edge; and what they
   say to a pointer and to a screen reader. */
"use strict";

/** What a layer or a group of layers amounts to; kept on the item. */
pathlen.summary = function (item, data) {
  if (item.summary) return item.summary;
  const layers = data.layers;
  const sum = { states: [0, 0, 0], units: 0, contribution: {}, layers: 0, strip: [] };
  for (const name of data.weightings) sum.contribution[name] = 0;
  if (item.children) {
    for (const child of item.children) {
      const part = pathlen.summary(child, data);
      part.states.forEach((number, state) => (sum.states[state] += number));
      sum.units += part.units;
      sum.layers += part.layers;
      for (const name of data.weightings) sum.contribution[name] += part.contribution[name];
    }
    sum.strip = sum.states.flatMap((number, state) =>
      number ? [0, 1, 2].map((place) => (place === state ? number : 0)) : [],
    );
  } else {
    const at = item.layer;
    sum.layers = 1;
    sum.units = layers.units[at];
    sum.strip = layers.strip[at];
    if (layers.activation[at]) sum.states = [layers.active[at], sum.units - layers.active[at], 0];
    sum.states[2] = layers.dead[at];
    for (const name of data.weightings) sum.contribution[name] = layers.contribution[name][at];
  }
  item.summary = sum;
  return sum;
};

/** A strip of channels: one path for each state. A piece of several states is stacked in height. */
pathlen.strip = function (pieces, x, y, width, height) {
  const total = pieces.reduce((sum, number) => sum + number, 0);
  const lines = ["", "", ""];
  let left = x;
  for (let start = 0; start < pieces.length; start += 3) {
    const size = pieces[start] + pieces[start + 1] + pieces[start + 2];
    const wide = (size / total) * width;
    let bottom = y + height;
    for (let state = 0; state < 3; state++) {
      const high = (pieces[start + state] / size) * height;
      if (high)
        lines[state] +=
          `M${round(left)} ${round(bottom)}h${round(wide)}v${round(-high)}h${round(-wide)}z`;
      bottom -= high;
    }
    left += wide;
  }
  const drawn = pathlen.shape("g", { class: "strip" });
  lines.forEach((line, state) => {
    if (line) drawn.append(pathlen.shape("path", { d: line, class: pathlen.STATES[state] }));
  });
  drawn.append(pathlen.shape("rect", { x, y, width, height, class: "strip-line" }));
  return drawn;
};

const round = (value) => Math.round(value * 100) / 100;

/** A box of the graph. `view` has the data, the weighting, and what is searched and chosen. */
pathlen.drawBox = function (box, view) {
  const { item, x, y, height } = box;
  const { width } = pathlen.SIZE;
  const about = pathlen.summary(item, view.data);
  const kinds = ["node", item.children ? "group" : about.strip.length ? "layer" : "plain"];
  const matches = view.matchesIn(item);
  if (matches) kinds.push("match");
  if (view.chosen === item) kinds.push("chosen");
  const drawn = pathlen.shape("g", {
    class: kinds.join(" "),
    transform: `translate(${x} ${y})`,
    role: "button",
    tabindex: view.current === item ? 0 : -1,
    "data-place": box.place,
    "aria-label": pathlen.boxText(item, view.data).join(", "),
  });
  if (item.children) {
    drawn.setAttribute("aria-expanded", "false");
    drawn.append(rectangle("behind", 4, 4, width, height));
  }
  drawn.append(rectangle("box", 0, 0, width, height));
  const added = about.contribution[view.weighting];
  const amount = added ? "+" + pathlen.number(added) : "";
  const sign = item.children ? "\u25b8 " : "";
  const room = 29 - amount.length - sign.length;
  drawn.append(
    text("label", 10, 18, sign + pathlen.shortened(item.label, room)),
    text("small", width - 10, 18, amount, "end"),
    text("small", 10, 34, secondLine(item, about, view.data)),
  );
  if (matches && item.children)
    drawn.append(text("small", width - 10, 34, `${pathlen.count(matches)} found`, "end"));
  if (about.strip.length) {
    drawn.append(pathlen.strip(about.strip, 10, 41, width - 20, 10));
    drawn.append(contributionBar(item, added, view));
  }
  return drawn;
};

function rectangle(kind, x, y, width, height) {
  return pathlen.shape("rect", { class: kind, x, y, width, height, rx: 6 });
}

function text(kind, x, y, content, anchor = "start") {
  return pathlen.shape("text", { class: kind, x, y, "text-anchor": anchor }, content);
}

function secondLine(item, about, data) {
  if (item.children) return pathlen.plural(about.layers, "layer");
  const units = ` \u00b7 ${pathlen.plural(about.units, "unit")}`;
  return pathlen.shortened(data.layers.operation[item.layer], 34 - units.length) + units;
}

/** A layer's part, to the largest layer's; a group's part, to the whole average. */
function contributionBar(item, added, view) {
  const width = pathlen.SIZE.width - 20;
  const most = item.children ? view.data.averages[view.weighting] : view.largest[view.weighting];
  const share = most ? Math.min(1, added / most) : 0;
  return pathlen.shape(
    "g",
    {},
    pathlen.shape("rect", { class: "part-ground", x: 10, y: 56, width, height: 3 }),
    pathlen.shape("rect", { class: `part ${view.weighting}`, x: 10, y: 56, width: share * width, height: 3 }),
  );
}

/** What is told of an item: its name first. */
pathlen.boxText = function (item, data) {
  const about = pathlen.summary(item, data);
  const states = pathlen.statesText(about.states);
  const lines = [item.range ? `${item.path ? item.path + ": " : ""}${item.label}` : item.path];
  if (item.children) lines.push(`${pathlen.plural(about.layers, "layer")}, folded`);
  else lines.push(`${data.layers.operation[item.layer]}, ${pathlen.plural(about.units, "unit")}`);
  if (states) lines.push(`channels: ${states}`);
  if (about.states[0])
    for (const name of data.weightings) {
      const added = pathlen.number(about.contribution[name]);
      const whole = pathlen.number(data.averages[name]);
      lines.push(`adds ${added} of ${whole} (${pathlen.WEIGHTINGS[name].label})`);
    }
  return lines;
};

/** The frame of an open module, with a title that folds it. */
pathlen.drawFrame = function (frame) {
  const { group, x, y, width, height } = frame;
  const name = group.range ? group.label : group.path;
  const label = "\u25be " + pathlen.shortened(group.label, Math.floor(width / 8.5) - 2);
  const title = pathlen.shape(
    "g",
    {
      class: "frame-title",
      role: "button",
      tabindex: -1,
      "data-group": group.id,
      "aria-expanded": "true",
      "aria-label": `${name}, unfolded`,
    },
    pathlen.shape("rect", { x: x + 2, y: y + 2, width: width - 4, height: 20, rx: 5 }),
    text("label", x + 10, y + 17, label),
  );
  const kind = group.depth % 2 ? "frame" : "frame even";
  return pathlen.shape("g", {}, rectangle(kind, x, y, width, height), title);
};

/** An edge, with a wider line that nobody sees but a pointer meets. */
pathlen.drawEdge = function (drawn, view) {
  const { edge, line, end, source, target } = drawn;
  const chosen = view.chosen && (source.item === view.chosen || target.item === view.chosen);
  const kinds = (edge.skip ? " skip" : "") + (edge.back ? " back" : "") + (chosen ? " chosen" : "");
  const share = pathlen.edgeShare(edge, view.weighting, view.data);
  const tip = end.y - 1;
  return pathlen.shape(
    "g",
    { "data-edge": drawn.index },
    pathlen.shape("path", { class: "edge" + kinds, d: line, "stroke-width": 1.2 + 2.3 * share }),
    pathlen.shape("path", { class: "arrow" + kinds, d: `M${end.x} ${tip}l-4.5 -8h9z` }),
    pathlen.shape("path", { class: "hit", d: line }),
  );
};

pathlen.edgeShare = function (edge, weighting, data) {
  const shares = data.edges.share[weighting];
  return Math.min(1, edge.members.reduce((sum, index) => sum + shares[index], 0));
};

pathlen.edgeText = function (drawn, data) {
  const { edge, source, target } = drawn;
  const lines = [edge.skip ? "skip connection" : edge.back ? "connection back up" : "connection"];
  for (const name of data.weightings) {
    const share = pathlen.percent(pathlen.edgeShare(edge, name, data));
    lines.push(`${share} ${pathlen.WEIGHTINGS[name].of} go this way`);
  }
  return [`${source.item.path || source.item.label} \u2192 ${target.item.path || target.item.label}`, lines];
};
