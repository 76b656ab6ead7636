/* Where everything of the graph is drawn: boxes, frames of open modules, lanes of skip connections.

   Edges to an heir (see graph_ranks.js) go straight down; edges to the next rank are curves; all
   others go around the boxes in lanes on the right, one lane for each item that they start from. */
"use strict";

pathlen.SIZE = {
  width: 236, // of a box
  tall: 66, // a box with a strip of channels
  low: 44, // a box without one
  between: 24, // columns, with what lies beside their boxes
  gap: 30, // between ranks
  title: 24, // of a frame
  pad: 10, // around a frame's contents
  lane: 12,
  port: 26, // from the right corner of a box to where lanes leave and enter
};

/** The drawing of shown items: ranks with their y, boxes, edges, frames, and its extent. */
pathlen.layout = function (items, frames, edges, isTall) {
  const { rank, column } = pathlen.ranksAndColumns(items.length, edges);
  const ranks = 1 + rank.reduce((most, value) => Math.max(most, value), 0);
  const spans = frameSpans(items, frames, rank, column);
  const rows = rowsOf(ranks, items, rank, isTall, spans);
  const lanes = lanesOf(items, edges, rank, column, spans);
  const x = pathlen.columnsInPlace(ranks, column, lanes, spans);
  const boxes = items.map((item, place) => {
    const height = isTall(item) ? pathlen.SIZE.tall : pathlen.SIZE.low;
    const y = rows.top[rank[place]] + (rows.height[rank[place]] - height) / 2;
    return { item, place, x: x.get(column[place]), y, height, rank: rank[place] };
  });
  const drawing = { boxes, frames: framesAt(spans, rows) };
  drawing.edges = edges.map((edge) => routed(edge, boxes, rows, lanes));
  drawing.extent = extentOf(drawing, lanes);
  return drawing;
};

/** The ranks and columns that the contents of each open module span. */
function frameSpans(items, frames, rank, column) {
  const spans = new Map(
    frames.map((group) => [
      group,
      { group, from: Infinity, to: -Infinity, left: Infinity, right: -Infinity, above: 1, below: 1 },
    ]),
  );
  items.forEach((item, place) => {
    for (let group = item.parent; group; group = group.parent) {
      const span = spans.get(group);
      if (!span) continue;
      span.from = Math.min(span.from, rank[place]);
      span.to = Math.max(span.to, rank[place]);
      span.left = Math.min(span.left, column[place]);
      span.right = Math.max(span.right, column[place]);
    }
  });
  // From the inside out: a frame that starts at the same rank as one inside of it starts above it.
  const found = [...spans.values()].sort((one, other) => other.group.depth - one.group.depth);
  for (const span of found) {
    const outer = spans.get(span.group.parent);
    if (!outer) continue;
    if (outer.from === span.from) outer.above = Math.max(outer.above, span.above + 1);
    if (outer.to === span.to) outer.below = Math.max(outer.below, span.below + 1);
  }
  return found;
}

/** Top and height of each rank; there is room above it for titles of frames. */
function rowsOf(ranks, items, rank, isTall, spans) {
  const size = pathlen.SIZE;
  const above = new Int32Array(ranks);
  const below = new Int32Array(ranks);
  for (const span of spans) {
    above[span.from] = Math.max(above[span.from], span.above);
    below[span.to] = Math.max(below[span.to], span.below);
  }
  const height = new Float64Array(ranks).fill(size.low);
  items.forEach((item, place) => {
    if (isTall(item)) height[rank[place]] = size.tall;
  });
  const top = new Float64Array(ranks);
  let y = 0;
  for (let row = 0; row < ranks; row++) {
    y += above[row] * size.title;
    top[row] = y;
    y += height[row] + below[row] * size.pad + size.gap;
  }
  return { top, height, above, below };
}

/** The lanes that edges take, by the item that they start from, with the ranks that each spans.

   A lane runs on the right of the innermost module that holds all of its ends. */
function lanesOf(items, edges, rank, column, spans) {
  const spanOf = new Map(spans.map((span) => [span.group, span]));
  const lanes = new Map();
  for (const edge of edges) {
    const passes = rank[edge.target] > rank[edge.source] + 1;
    edge.lane = edge.back || (passes && !edge.main);
    if (!edge.lane) continue;
    const { source, target } = edge;
    const lane = lanes.get(source) || { from: rank[source], to: rank[source], inside: items[source].parent };
    lane.from = Math.min(lane.from, rank[target]);
    lane.to = Math.max(lane.to, rank[target]);
    lane.inside = pathlen.commonGroup(lane.inside, items[target].parent);
    lanes.set(source, lane);
  }
  const most = column.reduce((found, value) => Math.max(found, value), 0);
  for (const lane of lanes.values()) {
    const span = spanOf.get(lane.inside);
    lane.right = span ? span.right : most;
  }
  return lanes;
}

function framesAt(spans, rows) {
  const size = pathlen.SIZE;
  // From the outside in, so that inner frames are drawn over outer ones.
  return [...spans].reverse().map((span) => {
    const y = rows.top[span.from] - span.above * size.title - 4;
    const bottom = rows.top[span.to] + rows.height[span.to] + span.below * size.pad;
    return { group: span.group, x: span.leftX, y, width: span.x - span.leftX, height: bottom - y };
  });
}

/** The line of an edge, as the text of an SVG path, with its end and what it spans in y. */
function routed(edge, boxes, rows, lanes) {
  const size = pathlen.SIZE;
  const [source, target] = [boxes[edge.source], boxes[edge.target]];
  const drawn = { edge, source, target };
  if (edge.lane) {
    const lane = lanes.get(edge.source).x;
    const start = { x: source.x + size.width - size.port, y: source.y + source.height };
    const end = { x: target.x + size.width - size.port, y: target.y };
    const out = rows.top[source.rank] + rows.height[source.rank] + 9;
    const back = rows.top[target.rank] - 13;
    const down = back > out ? 1 : -1;
    const bend = 8;
    drawn.line =
      `M${start.x} ${start.y}Q${start.x} ${out} ${start.x + bend} ${out}H${lane - bend}` +
      `Q${lane} ${out} ${lane} ${out + down * bend}V${back - down * bend}` +
      `Q${lane} ${back} ${lane - bend} ${back}H${end.x + bend}Q${end.x} ${back} ${end.x} ${end.y - 6}`;
    const [top, bottom] = [Math.min(start.y, back), Math.max(end.y, out)];
    return Object.assign(drawn, { end, lane, out, back, top, bottom });
  }
  const start = { x: source.x + size.width / 2, y: source.y + source.height };
  const end = { x: target.x + size.width / 2, y: target.y };
  if (start.x === end.x) drawn.line = `M${start.x} ${start.y}V${end.y - 6}`;
  else {
    // Straight down its own column, then over to the other within the last gap.
    const turn = Math.max(start.y, rows.top[target.rank] - size.gap - rows.above[target.rank] * size.title);
    const middle = (turn + end.y - 6) / 2;
    drawn.line = `M${start.x} ${start.y}V${turn}C${start.x} ${middle} ${end.x} ${middle} ${end.x} ${end.y - 6}`;
  }
  return Object.assign(drawn, { start, end, top: start.y, bottom: end.y });
}

/** Whether an edge can be seen in a rectangle: of one in a lane, that lane or what leads to it. */
pathlen.isNear = function (drawn, { x, y, right, bottom }) {
  if (drawn.top >= bottom || drawn.bottom <= y) return false;
  if (drawn.lane === undefined) {
    const [start, end] = [drawn.start.x, drawn.end.x];
    return Math.min(start, end) < right + 20 && Math.max(start, end) > x - 20;
  }
  const within = (value, low, high) => value > low - 20 && value < high + 20;
  return within(drawn.lane, x, right) || within(drawn.out, y, bottom) || within(drawn.back, y, bottom);
};

function extentOf(drawing, lanes) {
  const size = pathlen.SIZE;
  const extent = { left: 0, top: 0, right: size.width, bottom: size.low };
  for (const box of [...drawing.boxes, ...drawing.frames]) {
    extent.left = Math.min(extent.left, box.x);
    extent.top = Math.min(extent.top, box.y);
    extent.right = Math.max(extent.right, box.x + (box.width || size.width));
    extent.bottom = Math.max(extent.bottom, box.y + box.height);
  }
  for (const lane of lanes.values()) extent.right = Math.max(extent.right, lane.x + size.lane);
  return extent;
}
