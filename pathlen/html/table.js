/* The layers as a table: the same numbers for those who read rather than look. */
"use strict";

const ROWS = 100; // shown at first, and more each time that more are asked for

pathlen.LayerTable = class {
  /** A table in the page that shows a layer in the graph by calling `show`. */
  constructor(data, show) {
    this.data = data;
    this.show = show;
    this.shown = ROWS;
    this.matched = null;
    this.sort = { column: 0, down: false };
    this.columns = this.makeColumns();
    pathlen.byId("more").addEventListener("click", () => {
      this.shown += 5 * ROWS;
      this.draw();
    });
    this.draw();
  }

  makeColumns() {
    const { layers, weightings } = this.data;
    const numbers = (label, values, write) => ({
      label,
      value: (at) => values[at],
      write: (at) => write(values[at]),
    });
    return [
      { label: "layer", value: (at) => at, write: (at) => layers.name[at] },
      { label: "operation", value: (at) => layers.operation[at], write: (at) => layers.operation[at] },
      numbers("units", layers.units, pathlen.count),
      numbers("active", layers.active, pathlen.count),
      numbers("dead", layers.dead, pathlen.count),
      ...weightings.map((name) =>
        numbers(pathlen.WEIGHTINGS[name].label, layers.contribution[name], pathlen.number),
      ),
    ].filter((column) => column.label !== "dead" || layers.dead.some((number) => number > 0));
  }

  /** Show the layers that a search found; null for all. */
  filter(matched) {
    this.matched = matched;
    this.shown = ROWS;
    this.draw();
  }

  order() {
    const rows = this.matched ? [...this.matched] : [...this.data.layers.name.keys()];
    const { value } = this.columns[this.sort.column];
    const sign = this.sort.down ? -1 : 1;
    return rows.sort((one, other) => {
      const [a, b] = [value(one), value(other)];
      return a === b ? one - other : sign * (a < b ? -1 : 1);
    });
  }

  draw() {
    const rows = this.order();
    const shown = rows.slice(0, this.shown);
    const body = pathlen.element("tbody", {}, ...shown.map((at) => this.row(at)));
    pathlen.byId("table").replaceChildren(pathlen.element("thead", {}, this.head()), body);
    pathlen.byId("table-text").textContent =
      shown.length < rows.length
        ? `The first ${pathlen.count(shown.length)} of ${pathlen.plural(rows.length, "layer")}.`
        : pathlen.plural(rows.length, "layer") + (this.matched ? " found." : ".");
    pathlen.byId("more").hidden = shown.length === rows.length;
  }

  head() {
    const cells = this.columns.map((column, index) => {
      const here = index === this.sort.column;
      const mark = here ? (this.sort.down ? " \u2193" : " \u2191") : "";
      const button = pathlen.element("button", { type: "button" }, column.label + mark);
      button.addEventListener("click", () => {
        // Numbers are looked at from the largest on.
        this.sort = { column: index, down: here ? !this.sort.down : index > 1 };
        this.draw();
        pathlen.byId("table").querySelectorAll("th button")[index].focus();
      });
      const order = here ? (this.sort.down ? "descending" : "ascending") : "none";
      return pathlen.element("th", { scope: "col", "aria-sort": order }, button);
    });
    return pathlen.element("tr", {}, ...cells);
  }

  row(at) {
    const cells = this.columns.map((column, index) => {
      if (index) return pathlen.element("td", {}, column.write(at));
      const button = pathlen.element("button", { type: "button" }, column.write(at));
      button.addEventListener("click", () => this.show(at));
      return pathlen.element("td", {}, button);
    });
    return pathlen.element("tr", {}, ...cells);
  }
};
