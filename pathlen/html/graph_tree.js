/* The tree of modules that the graph is folded by, and the graph that a state of folding shows.

   An item of the tree is a layer, or a group of items: a module, or, where a module has very many
   parts, a range of them. What is shown is a set of items that holds every layer exactly once. */
"use strict";

/* A module of more parts than MOST_PARTS is divided into ranges of RANGE parts. */
pathlen.MOST_PARTS = 100;
pathlen.RANGE = 50;

/** The tree of the layers' names. Items have: id, label, path, parent, first (their first layer). */
pathlen.makeTree = function (names) {
  const root = newGroup("", "", null);
  const groups = new Map([["", root]]);
  const modules = new Set();
  for (const name of names) {
    const parts = name.split(".");
    for (let end = 1; end < parts.length; end++) modules.add(parts.slice(0, end).join("."));
  }
  names.forEach((name, index) => {
    // A module's own calls ("attn" beside "attn.scores", "attn#2") belong to the module.
    const own = name.replace(/#\d+$/, "");
    const parts = name.split(".");
    const path = modules.has(own) ? own : parts.slice(0, -1).join(".");
    const group = groupAt(groups, path);
    group.children.push({ label: parts.at(-1), path: name, parent: group, layer: index });
  });
  tidy(root);
  number(root);
  return root;
};

function newGroup(path, label, parent) {
  return { path, label, parent, children: [], open: false };
}

function groupAt(groups, path) {
  if (groups.has(path)) return groups.get(path);
  const cut = path.lastIndexOf(".");
  const parent = groupAt(groups, cut < 0 ? "" : path.slice(0, cut));
  const group = newGroup(path, path.slice(cut + 1), parent);
  parent.children.push(group);
  groups.set(path, group);
  return group;
}

/** Join modules with only one part to that part, and divide those with very many. */
function tidy(group) {
  group.children.forEach((child) => child.children && tidy(child));
  group.children = group.children.map((child) => {
    if (!child.children || child.children.length !== 1) return child;
    const only = child.children[0];
    only.label = `${child.label}.${only.label}`;
    only.parent = group;
    return only;
  });
  while (group.children.length > pathlen.MOST_PARTS) group.children = ranges(group);
}

function ranges(group) {
  const made = [];
  for (let start = 0; start < group.children.length; start += pathlen.RANGE) {
    const part = newGroup(group.path, "", group);
    part.children = group.children.slice(start, start + pathlen.RANGE);
    part.children.forEach((child) => (child.parent = part));
    part.label = `${firstLabel(part.children[0])} \u2026 ${lastLabel(part.children.at(-1))}`;
    part.range = true;
    made.push(part);
  }
  return made;
}

const firstLabel = (item) => (item.range ? firstLabel(item.children[0]) : item.label);
const lastLabel = (item) => (item.range ? lastLabel(item.children.at(-1)) : item.label);

/** Give each item its id, depth, first layer and number of layers, in one walk. */
function number(root) {
  let next = 0;
  const visit = (item, depth) => {
    item.id = next++;
    item.depth = depth;
    if (!item.children) {
      item.first = item.layer;
      item.size = 1;
      return;
    }
    item.children.forEach((child) => visit(child, depth + 1));
    item.first = Math.min(...item.children.map((child) => child.first));
    item.size = item.children.reduce((sum, child) => sum + child.size, 0);
    item.children.sort((one, other) => one.first - other.first);
  };
  visit(root, 0);
  root.open = true;
}

/** All groups below the root. */
pathlen.groupsOf = function (root) {
  const found = [];
  const visit = (item) => {
    for (const child of item.children) {
      if (!child.children) continue;
      found.push(child);
      visit(child);
    }
  };
  visit(root);
  return found;
};

/** Open the groups of one depth after the other, as long as no more than `most` items are shown. */
pathlen.openUpTo = function (root, most) {
  let shown = root.children.length;
  let level = root.children;
  while (level.some((item) => item.children)) {
    const groups = level.filter((item) => item.children);
    shown += groups.reduce((sum, group) => sum + group.children.length - 1, 0);
    if (shown > most) return;
    groups.forEach((group) => (group.open = true));
    level = groups.flatMap((group) => group.children);
  }
};

/** Open the closed groups that are shown. */
pathlen.openLevel = function (root) {
  const { items } = pathlen.shownItems(root);
  items.filter((item) => item.children).forEach((item) => (item.open = true));
};

/** The items that are shown, in order, and the open groups around them. */
pathlen.shownItems = function (root) {
  const items = [];
  const frames = [];
  const visit = (item) => {
    if (!item.children || !item.open) return items.push(item);
    if (item !== root) frames.push(item);
    item.children.forEach(visit);
  };
  visit(root);
  items.sort((one, other) => one.first - other.first);
  return { items, frames };
};

/** Which shown item, by its place among them, each layer is in: Int32Array[layers]. */
pathlen.placesOf = function (items, layers) {
  const places = new Int32Array(layers);
  items.forEach((item, place) => {
    const visit = (part) => {
      if (part.children) part.children.forEach(visit);
      else places[part.layer] = place;
    };
    visit(item);
  });
  return places;
};

/** The edges between shown items: those of layers, joined where they have the same ends.

   An edge is a skip if all that it stands for are. Its shares are sums, for a path takes one of
   them; where a module is entered several times they could exceed 1, and are cut off there. */
pathlen.shownEdges = function (edges, places) {
  const found = new Map();
  for (let index = 0; index < edges.source.length; index++) {
    const source = places[edges.source[index]];
    const target = places[edges.target[index]];
    if (source === target) continue;
    const key = source * places.length + target;
    let edge = found.get(key);
    if (!edge) {
      edge = { source, target, skip: true, members: [] };
      found.set(key, edge);
    }
    edge.skip = edge.skip && edges.skip[index] === 1;
    edge.members.push(index);
  }
  return [...found.values()];
};
