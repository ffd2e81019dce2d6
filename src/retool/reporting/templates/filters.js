// The form above the list: what is wanted of the trajectories.

class Filters {
  /** `changed()` is called when something else is wanted than before. */
  constructor(archive, changed) {
    Object.assign(this, { archive, changed, found: null });
    this.recorded = recordedOrder(archive);
    this.fields = Object.fromEntries(["query", "verdict", "code", "run", "step", "order"].map((id) => [id, byId(id)]));
    this.descending = true;
    this.fillRuns();
    this.fillSteps();
    this.fields.order.append(...usefulOrders(archive).map(([name, { label }]) => option(name, `by ${label}`)));
    this.fields.order.firstChild.textContent = ORDERS.recorded.label;
    this.search = new Search(archive, (found, share) => {
      Object.assign(this, { found, share });
      changed();
    });
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    byId("filters").addEventListener("change", (event) => event.target === this.fields.query || changed());
    let pause;
    this.fields.query.addEventListener("input", () => {
      clearTimeout(pause);
      pause = setTimeout(() => this.search.start(this.query), 150);
    });
    byId("direction").addEventListener("click", () => {
      this.descending = !this.descending;
      changed();
    });
  }

  get query() {
    return this.fields.query.value;
  }

  clearSearch() {
    this.fields.query.value = "";
    this.search.start("");
  }

  fillRuns() {
    const { runs, rows } = this.archive;
    const parts = runs.map((label, run) => {
      const has = (origin) => rows.run.some((each, row) => each === run && rows.origin[row] === origin);
      const origins = ORIGINS.filter(has);
      if (origins.length < 2) return option(run, label);
      const each = origins.map((origin) => option(`${run} ${origin}`, `${label}: ${origin}`));
      return element("optgroup", { label }, option(run, `${label}: all`), ...each);
    });
    this.fields.run.append(option("", runs.length > 1 ? "all runs" : "all of the run"), ...parts);
    this.fields.run.hidden = this.fields.run.querySelectorAll("option").length < 3;
  }

  fillSteps() {
    const steps = [...new Set(this.archive.rows.step)].filter((step) => step !== null).sort((a, b) => a - b);
    this.fields.step.append(option("", "all steps"), ...steps.map((step) => option(step, `step ${step}`)));
    this.fields.step.hidden = steps.length < 2;
  }

  /** The rows that are wanted, in order. */
  rows() {
    const wanted = Object.fromEntries(Object.entries(this.fields).map(([name, field]) => [name, field.value]));
    const sorted = wanted.order !== "recorded";
    wanted.descending = sorted && this.descending;
    byId("direction").hidden = !sorted;
    byId("direction").textContent = this.descending ? "↓" : "↑";
    byId("direction").ariaLabel = this.descending ? "descending" : "ascending";
    const chosen = selectRows(this.archive, this.recorded, wanted, this.found);
    const searching = this.found && this.share < 1 ? `, ${Math.round(100 * this.share)} % searched` : "";
    byId("count").textContent = `${whole(chosen.length)} of ${whole(this.archive.size)}${searching}`;
    return chosen;
  }
}
