/* The layer graph as people use it: scrolled, zoomed, folded, searched.

   Scrolling is the browser's own. Of a large graph only what is in or near the window is in the
   document; pieces are made as they come near, and dropped as they leave. */
"use strict";

const START_SHOWN = 60; // modules are open at first as long as no more items are shown
const MARGIN = 24;
const NEAR = 700; // pixels around the window that are drawn
const SCALES = { least: 0.1, readable: 0.5, most: 2 };

pathlen.GraphView = class {
  /** Draws the graph of `data` into the element `place`. */
  constructor(place, data) {
    this.place = place;
    this.data = data;
    this.root = pathlen.makeTree(data.layers.name);
    this.groups = new Map(pathlen.groupsOf(this.root).map((group) => [group.id, group]));
    this.leaves = [];
    this.collect(this.root);
    this.weighting = data.weightings.includes("normalized") ? "normalized" : data.weightings[0];
    this.largest = {};
    for (const name of data.weightings)
      this.largest[name] = data.layers.contribution[name].reduce((most, value) => Math.max(most, value), 0);
    this.scale = 1;
    this.matched = [];
    this.chosen = this.current = null;
    pathlen.openUpTo(this.root, START_SHOWN);
    this.makeElements();
    this.listen();
    this.relayout();
    this.fit(SCALES.readable);
    this.center(this.current);
    this.update();
  }

  collect(item) {
    if (!item.children) this.leaves[item.layer] = item;
    else item.children.forEach((child) => this.collect(child));
  }

  makeElements() {
    this.sizer = pathlen.element("div", {});
    this.svg = pathlen.shape("svg", {});
    this.layers = ["frames", "edges", "boxes"].map((name) => pathlen.shape("g", { "data-layer": name }));
    this.svg.append(...this.layers);
    this.sizer.append(this.svg);
    this.place.append(this.sizer);
    this.alive = new Map(); // what is in the document: piece of the drawing -> element
  }

  // --- folding ---

  /** Lay out what is shown now, and draw it; `anchor` stays where it is in the window. */
  relayout(anchor = null) {
    const before = anchor && this.topOf(anchor);
    const { items, frames } = pathlen.shownItems(this.root);
    const places = pathlen.placesOf(items, this.leaves.length);
    const edges = pathlen.shownEdges(this.data.edges, places);
    const isTall = (item) => pathlen.summary(item, this.data).strip.length > 0;
    this.drawing = pathlen.layout(items, frames, edges, isTall);
    this.drawing.edges.forEach((edge, index) => (edge.index = index));
    this.boxOf = new Map(this.drawing.boxes.map((box) => [box.item, box]));
    this.current = this.shownFor(this.current);
    this.resize();
    if (anchor && before !== null) {
      const now = this.topOf(anchor);
      if (now !== null) this.place.scrollTop += (now - before) * this.scale;
    }
    this.redraw();
  }

  /** The y of a shown item, or of the frame of an open one, below the top of the drawing. */
  topOf(item) {
    const drawn = this.boxOf.get(item) || this.drawing.frames.find((one) => one.group === item);
    return drawn ? drawn.y - this.drawing.extent.top : null;
  }

  /** The shown item that an item is in or, if it is an open module, the first one in it. */
  shownFor(item) {
    for (let at = item; at; at = at.parent) if (this.boxOf.has(at)) return at;
    let first = item || this.root;
    while (!this.boxOf.has(first)) first = first.children[0];
    return first;
  }

  setOpen(group, open) {
    group.open = open;
    this.current = open ? group.children[0] : group;
    this.relayout(group);
  }

  foldAll() {
    for (const group of this.groups.values()) group.open = false;
    this.relayout();
    this.place.scrollTop = 0;
    this.redraw();
  }

  unfoldLevel() {
    pathlen.openLevel(this.root);
    this.relayout();
  }

  unfoldAll() {
    for (const group of this.groups.values()) group.open = true;
    this.relayout();
  }

  // --- searching ---

  /** Mark the layers whose name or operation holds a text; gives how many there are. */
  search(text) {
    const wanted = text.trim().toLowerCase();
    const { name, operation } = this.data.layers;
    this.matched = [];
    this.at = -1;
    this.inside = new Map();
    if (wanted)
      for (const leaf of this.leaves) {
        const [own, kind] = [name[leaf.layer], operation[leaf.layer]];
        if (!own.toLowerCase().includes(wanted) && !kind.toLowerCase().includes(wanted)) continue;
        this.matched.push(leaf.layer);
        for (let item = leaf; item; item = item.parent)
          this.inside.set(item, (this.inside.get(item) || 0) + 1);
      }
    this.chosen = null;
    this.redraw();
    return this.matched.length;
  }

  matchesIn(item) {
    return (this.inside && this.inside.get(item)) || 0;
  }

  /** Go to the next match, or the one before; gives which it is, from 0. */
  step(by) {
    if (!this.matched.length) return -1;
    const count = this.matched.length;
    this.at = this.at < 0 ? (by > 0 ? 0 : count - 1) : (this.at + by + count) % count;
    this.reveal(this.matched[this.at]);
    return this.at;
  }

  /** Unfold what a layer is in, and bring it to the middle of the window. */
  reveal(layer) {
    const item = this.leaves[layer];
    let folded = false;
    for (let group = item.parent; group; group = group.parent) {
      folded = folded || !group.open;
      group.open = true;
    }
    this.chosen = this.current = item;
    if (folded) this.relayout();
    if (this.scale < SCALES.readable) this.zoom(1 / this.scale);
    this.center(item);
    this.redraw();
  }

  center(item) {
    const box = this.boxOf.get(item);
    const { left, top } = this.drawing.extent;
    const middle = { x: box.x + pathlen.SIZE.width / 2 - left, y: box.y + box.height / 2 - top };
    this.place.scrollTop = middle.y * this.scale + MARGIN - this.place.clientHeight / 2;
    this.place.scrollLeft = middle.x * this.scale + this.offset - this.place.clientWidth / 2;
  }

  // --- drawing ---

  setWeighting(name) {
    this.weighting = name;
    this.redraw();
  }

  /** Make the scrolled area as large as the drawing. */
  resize() {
    const { left, right, top, bottom } = this.drawing.extent;
    const width = (right - left) * this.scale;
    this.offset = Math.max(MARGIN, (this.place.clientWidth - width) / 2);
    this.sizer.style.width = `${width + 2 * this.offset - 1}px`;
    this.sizer.style.height = `${(bottom - top) * this.scale + 2 * MARGIN}px`;
  }

  redraw() {
    this.alive.clear();
    this.layers.forEach((layer) => layer.replaceChildren());
    this.update(true);
  }

  /** Draw what is near the window, and drop what no longer is. */
  update(always = false) {
    const { scrollTop, scrollLeft, clientWidth, clientHeight } = this.place;
    const seen = { x: scrollLeft, y: scrollTop, right: scrollLeft + clientWidth, bottom: scrollTop + clientHeight };
    const drawn = this.drawn;
    const isDrawn = drawn && seen.x >= drawn.x && seen.right <= drawn.right;
    if (!always && isDrawn && seen.y >= drawn.y && seen.bottom <= drawn.bottom) return;
    const area = (this.drawn = {
      x: Math.max(0, seen.x - NEAR),
      y: Math.max(0, seen.y - NEAR),
      right: Math.min(seen.right + NEAR, parseFloat(this.sizer.style.width)),
      bottom: Math.min(seen.bottom + NEAR, parseFloat(this.sizer.style.height)),
    });
    area.right = Math.max(area.right, seen.right);
    area.bottom = Math.max(area.bottom, seen.bottom);
    const { left, top } = this.drawing.extent;
    const world = {
      x: (area.x - this.offset) / this.scale + left,
      y: (area.y - MARGIN) / this.scale + top,
      width: (area.right - area.x) / this.scale,
      height: (area.bottom - area.y) / this.scale,
    };
    this.svg.style.left = `${area.x}px`;
    this.svg.style.top = `${area.y}px`;
    this.svg.setAttribute("width", area.right - area.x);
    this.svg.setAttribute("height", area.bottom - area.y);
    this.svg.setAttribute("viewBox", `${world.x} ${world.y} ${world.width} ${world.height}`);
    this.renew(world);
  }

  renew(world) {
    const bottom = world.y + world.height;
    const right = world.x + world.width;
    const meets = (x, y, width, height) =>
      x < right && x + width > world.x && y < bottom && y + height > world.y;
    const { width } = pathlen.SIZE;
    const near = [
      this.drawing.frames.filter((frame) => meets(frame.x, frame.y, frame.width, frame.height)),
      this.drawing.edges.filter((edge) => pathlen.isNear(edge, { ...world, right, bottom })),
      this.drawing.boxes.filter((box) => meets(box.x, box.y, width + 4, box.height + 4)),
    ];
    const make = [pathlen.drawFrame, pathlen.drawEdge, pathlen.drawBox];
    const kept = new Set(near.flat());
    for (const [piece, element] of this.alive)
      if (!kept.has(piece)) {
        element.remove();
        this.alive.delete(piece);
      }
    near.forEach((pieces, layer) => {
      for (const piece of pieces) {
        if (this.alive.has(piece)) continue;
        const element = make[layer](piece, this);
        this.alive.set(piece, element);
        this.layers[layer].append(element);
      }
    });
  }

  // --- zooming and moving ---

  /** Zoom, with the point (x, y) of the window held in place. */
  zoom(factor, x = this.place.clientWidth / 2, y = this.place.clientHeight / 2) {
    const scale = Math.min(SCALES.most, Math.max(SCALES.least, this.scale * factor));
    const at = {
      x: (this.place.scrollLeft + x - this.offset) / this.scale,
      y: (this.place.scrollTop + y - MARGIN) / this.scale,
    };
    this.scale = scale;
    this.resize();
    this.place.scrollLeft = at.x * scale + this.offset - x;
    this.place.scrollTop = at.y * scale + MARGIN - y;
    this.redraw();
  }

  /** Zoom until the width fits, but not below a scale and not above 1. */
  fit(least = 0) {
    const { left, right } = this.drawing.extent;
    const scale = (this.place.clientWidth - 2 * MARGIN) / (right - left);
    this.zoom(Math.max(least, Math.min(1, scale)) / this.scale);
  }

  listen() {
    pathlen.listenToGraph(this);
  }
};
