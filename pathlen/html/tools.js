/* What all scripts of the page use: making elements, writing numbers, colours of the theme.
   Every text from the model goes through `textContent` or an attribute, never through HTML. */
"use strict";

const pathlen = (window.pathlen = {});

pathlen.SVG = "http://www.w3.org/2000/svg";
pathlen.STATES = ["active", "linear", "dead"];
pathlen.WEIGHTINGS = {
  uniform: { label: "every path the same", of: "of paths" },
  normalized: { label: "every branch the same", of: "of walks" },
  magnitude: { label: "paths by magnitude", of: "by magnitude" },
};

pathlen.byId = (id) => document.getElementById(id);

/** An HTML element with attributes and children; a string becomes a text. */
pathlen.element = function (name, attributes, ...children) {
  return pathlen.filled(document.createElement(name), attributes, children);
};

/** The same for SVG. */
pathlen.shape = function (name, attributes, ...children) {
  return pathlen.filled(document.createElementNS(pathlen.SVG, name), attributes, children);
};

pathlen.filled = function (made, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  for (const child of children) made.append(child);
  return made;
};

/** 12345 as "12,345". */
pathlen.count = (value) => value.toLocaleString("en-US");

/** A contribution or an average: four decimals, or two digits where those would show nothing. */
pathlen.number = function (value) {
  if (value !== 0 && Math.abs(value) < 0.00005) return value.toExponential(1);
  return value.toFixed(4).replace(/\.?0+$/, "");
};

/** A share as a percentage. */
pathlen.percent = function (share) {
  if (share > 0 && share < 0.0001) return (100 * share).toExponential(1) + " %";
  return (100 * share).toFixed(share < 0.1 ? 2 : 1).replace(/\.?0+$/, "") + " %";
};

pathlen.plural = (number, what) => `${pathlen.count(number)} ${what}${number === 1 ? "" : "s"}`;

/** A text of at most `length` characters, without its middle if need be. */
pathlen.shortened = function (text, length) {
  if (text.length <= length) return text;
  const end = Math.floor((length - 1) / 2);
  return text.slice(0, length - 1 - end) + "\u2026" + text.slice(text.length - end);
};

/** The colour that a variable of the style sheet has in the present theme. */
pathlen.colour = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

/** "12 active, 4 linear, 0 dead", with what does not occur left out. */
pathlen.statesText = function (counts) {
  const parts = pathlen.STATES.map((state, index) => [counts[index], state]);
  return parts
    .filter(([number]) => number > 0)
    .map(([number, state]) => `${pathlen.count(number)} ${state}`)
    .join(", ");
};

/** Show a box near the pointer or near an element: a title, and lines below it. */
pathlen.showTip = function (title, lines, x, y) {
  const tip = pathlen.byId("tip");
  tip.replaceChildren(pathlen.element("strong", {}, title));
  for (const line of lines) tip.append(pathlen.element("span", {}, line));
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const left = x + 16 + box.width > innerWidth ? x - 16 - box.width : x + 16;
  const top = y + 12 + box.height > innerHeight ? y - 12 - box.height : y + 12;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, top)}px`;
};

pathlen.hideTip = function () {
  pathlen.byId("tip").hidden = true;
};
