/* Ranks and columns of a graph's items: the layout in whole numbers.

   The rank of an item is the number of edges on the longest way to it, so that every edge leads down.
   Chains stay in one column: of the items that follow an item, the one with the longest way to the end
   is its heir and stands below it, and column 0 holds the main chain from top to bottom. Other
   branches take the nearest free column. O(n + e), but for the number of columns tried. */
"use strict";

/** Ranks and columns of `count` items that are numbered in topological order.

   Where a folded module is left and entered again there are edges up; they are marked as `back` and
   leave the ranks alone. Sets rank, column and heir of each, and `main` on edges to an heir. */
pathlen.ranksAndColumns = function (count, edges) {
  const after = Array.from({ length: count }, () => []);
  const before = Array.from({ length: count }, () => []);
  for (const edge of edges) {
    edge.back = edge.source > edge.target;
    if (edge.back) continue;
    after[edge.source].push(edge);
    before[edge.target].push(edge);
  }
  const rank = ranksOf(count, after, before);
  const heir = heirsOf(count, after);
  const column = columnsOf(rank, heir, before);
  for (const edge of edges) edge.main = !edge.back && heir[edge.source] === edge.target;
  return { rank, column };
};

function ranksOf(count, after, before) {
  const rank = new Int32Array(count);
  for (let item = 0; item < count; item++)
    for (const edge of after[item])
      rank[edge.target] = Math.max(rank[edge.target], rank[item] + 1);
  // An input that is read late stands just above where it is read.
  for (let item = 0; item < count; item++)
    if (!before[item].length && after[item].length)
      rank[item] = Math.min(...after[item].map((edge) => rank[edge.target])) - 1;
  return rank;
}

function heirsOf(count, after) {
  const height = new Int32Array(count);
  const heir = new Int32Array(count).fill(-1);
  for (let item = count - 1; item >= 0; item--)
    for (const edge of after[item])
      if (height[edge.target] + 1 > height[item]) {
        height[item] = height[edge.target] + 1;
        heir[item] = edge.target;
      }
  return heir;
}

function columnsOf(rank, heir, before) {
  const order = Array.from(rank.keys()).sort((one, other) => rank[one] - rank[other] || one - other);
  const column = new Int32Array(rank.length);
  const taken = new Map(); // column -> the last rank that it is taken up to
  const isFree = (place, at) => !taken.has(place) || taken.get(place) < at;
  for (const item of order) {
    const wanted = before[item]
      .filter((edge) => heir[edge.source] === item)
      .map((edge) => column[edge.source])
      .sort((one, other) => Math.abs(one) - Math.abs(other));
    let place = wanted.find((candidate) => isFree(candidate, rank[item]));
    if (place === undefined) {
      // The main chain keeps column 0 clear as long as it can: branches go left, right, left, ...
      place = 0;
      while (!isFree(place, rank[item])) place = place < 0 ? -place : -place - 1;
    }
    column[item] = place;
    // The way down to an heir stays free, so that the edge to it is a straight line.
    taken.set(place, heir[item] < 0 ? rank[item] : Math.max(rank[item], rank[heir[item]] - 1));
  }
  return column;
}

/** The innermost group that holds both of two groups. */
pathlen.commonGroup = function (one, other) {
  while (one !== other) {
    if (one.depth >= other.depth) one = one.parent;
    else other = other.parent;
  }
  return one;
};

/** The x of each column, of each lane, and of both sides of each frame.

   Beside the boxes of a column lie the lanes and the sides of frames that end at this column. Each
   lies just outside of all that end there and share a rank with it, the shortest first, so that what
   is nested in the network is nested in the drawing. Sets `x` of lanes, `leftX` and `x` of frames. */
pathlen.columnsInPlace = function (ranks, column, lanes, spans) {
  const size = pathlen.SIZE;
  const beside = { left: new Map(), right: new Map() };
  const put = (side, place, thing, step) => {
    if (!beside[side].has(place)) beside[side].set(place, new Float64Array(ranks));
    const taken = beside[side].get(place);
    let most = 0;
    for (let row = thing.from; row <= thing.to; row++) most = Math.max(most, taken[row]);
    taken.fill(most + step, thing.from, thing.to + 1);
    return most + step;
  };
  const outward = [...lanes.values(), ...spans].sort(
    (one, other) => one.to - one.from - (other.to - other.from) || inner(other) - inner(one),
  );
  for (const thing of outward) {
    thing.beside = put("right", thing.right, thing, thing.group ? size.pad : size.lane);
    if (thing.group) thing.besideLeft = put("left", thing.left, thing, size.pad);
  }
  const x = columnsApart(column, beside);
  for (const thing of outward) {
    thing.x = x.get(thing.right) + size.width + thing.beside;
    if (thing.group) thing.leftX = x.get(thing.left) - thing.besideLeft;
  }
  return x;
};

/* Of the same length, lanes come before frames, and inner frames before outer ones. */
const inner = (thing) => (thing.group ? thing.group.depth : 1e9);

/** The x of each column: 0 for column 0, the others as far from it as what lies between needs. */
function columnsApart(column, beside) {
  const size = pathlen.SIZE;
  const widest = (side, place) =>
    beside[side].has(place) ? beside[side].get(place).reduce((most, value) => Math.max(most, value), 0) : 0;
  const [first, last] = column.reduce(([low, high], at) => [Math.min(low, at), Math.max(high, at)], [0, 0]);
  const apart = (place) => size.width + widest("right", place) + size.between + widest("left", place + 1);
  const x = new Map([[0, 0]]);
  for (let place = 0; place < last; place++) x.set(place + 1, x.get(place) + apart(place));
  for (let place = -1; place >= first; place--) x.set(place, x.get(place + 1) - apart(place));
  return x;
}
