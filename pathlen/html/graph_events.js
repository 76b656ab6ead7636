/* Pointer and keyboard on the layer graph. */
"use strict";

const DRAG = 4; // pixels that a press may move and still be a click

pathlen.listenToGraph = function (view) {
  const { place } = view;
  place.addEventListener("scroll", () => view.update(), { passive: true });
  new ResizeObserver(() => {
    view.resize();
    view.update(true);
  }).observe(place);
  place.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey && !event.metaKey) return; // plain scrolling is the browser's
      event.preventDefault();
      const box = place.getBoundingClientRect();
      view.zoom(Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
    },
    { passive: false },
  );
  listenToDrags(view);
  listenToHover(view);
  place.addEventListener("keydown", (event) => onKey(view, event));
};

/** Drag the ground to move; a press that does not move is a click. */
function listenToDrags(view) {
  const { place } = view;
  let press = null;
  place.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.pointerType === "touch") return; // fingers scroll by themselves
    press = { x: event.clientX, y: event.clientY, left: place.scrollLeft, top: place.scrollTop, moved: false };
  });
  addEventListener("pointermove", (event) => {
    if (!press) return;
    const [x, y] = [event.clientX - press.x, event.clientY - press.y];
    if (!press.moved && Math.hypot(x, y) < DRAG) return;
    press.moved = true;
    place.classList.add("moving");
    place.scrollLeft = press.left - x;
    place.scrollTop = press.top - y;
  });
  let moved = false;
  addEventListener("pointerup", () => {
    moved = press !== null && press.moved;
    press = null;
    place.classList.remove("moving");
  });
  place.addEventListener("click", (event) => {
    if (moved) return;
    const title = event.target.closest("[data-group]");
    const node = event.target.closest("[data-place]");
    if (title) view.setOpen(view.groups.get(Number(title.dataset.group)), false);
    else if (node) activate(view, view.drawing.boxes[Number(node.dataset.place)].item);
  });
}

/** Unfold a group; choose a layer. */
function activate(view, item) {
  pathlen.hideTip();
  if (item.children) return view.setOpen(item, true);
  view.chosen = view.chosen === item ? null : item;
  view.current = item;
  view.redraw();
}

function listenToHover(view) {
  view.place.addEventListener("pointermove", (event) => {
    const node = event.target.closest("[data-place]");
    const edge = event.target.closest("[data-edge]");
    if (node) {
      const [name, ...lines] = pathlen.boxText(view.drawing.boxes[Number(node.dataset.place)].item, view.data);
      pathlen.showTip(name, lines, event.clientX, event.clientY);
    } else if (edge) {
      const [name, lines] = pathlen.edgeText(view.drawing.edges[Number(edge.dataset.edge)], view.data);
      pathlen.showTip(name, lines, event.clientX, event.clientY);
    } else pathlen.hideTip();
  });
  view.place.addEventListener("pointerleave", pathlen.hideTip);
  view.place.addEventListener("focusout", pathlen.hideTip);
}

/** Arrow keys walk through the boxes in order; one of them at a time can be reached with Tab. */
function onKey(view, event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { boxes } = view.drawing;
  const box = view.boxOf.get(view.current) || boxes[0];
  const item = box.item;
  const last = boxes.length - 1;
  const acts = {
    ArrowDown: () => view.current = boxes[Math.min(last, box.place + 1)].item,
    ArrowUp: () => view.current = boxes[Math.max(0, box.place - 1)].item,
    Home: () => view.current = boxes[0].item,
    End: () => view.current = boxes[last].item,
    ArrowRight: () => item.children && view.setOpen(item, true),
    ArrowLeft: () => item.parent !== view.root && view.setOpen(item.parent, false),
    Enter: () => activate(view, item),
    " ": () => activate(view, item),
    "+": () => view.zoom(1.25),
    "-": () => view.zoom(0.8),
  };
  if (!(event.key in acts)) return;
  event.preventDefault();
  acts[event.key]();
  pathlen.focusCurrent(view);
}

/** Bring the current item into the window, focus it, and say what it is. */
pathlen.focusCurrent = function (view) {
  const box = view.boxOf.get(view.current);
  view.center(view.current);
  view.redraw();
  const element = view.alive.get(box);
  element.focus({ preventScroll: true });
  const at = element.getBoundingClientRect();
  const [name, ...lines] = pathlen.boxText(view.current, view.data);
  pathlen.showTip(name, lines, at.right - 12, at.top);
};
