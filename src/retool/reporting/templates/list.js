// The list: only the rows in view exist, so that ten thousand scroll like ten.

const ROW_HEIGHT = 58; // pixels, as in browser.css
const SPARE_ROWS = 6; // above and below those in view

class List {
  /** `choose(row)` is called when somebody picks a row. */
  constructor(place, archive, choose) {
    Object.assign(this, { place, archive, choose, order: [], picked: null });
    this.rows = byId("rows");
    place.addEventListener("scroll", () => this.draw(), { passive: true });
    this.rows.addEventListener("click", (event) => {
      const picked = event.target.closest("[data-position]");
      if (picked) this.pick(Number(picked.dataset.position));
    });
    new ResizeObserver(() => this.draw()).observe(place);
  }

  /** Where the row that is picked stands; −1: it is not among those that are shown. */
  get position() {
    return this.order.indexOf(this.picked);
  }

  /** Show the rows `order`. */
  show(order) {
    this.order = order;
    this.rows.style.height = `${order.length * ROW_HEIGHT}px`;
    this.reveal();
    this.draw();
  }

  pick(position) {
    if (!this.order.length) return;
    this.picked = this.order[Math.max(0, Math.min(position, this.order.length - 1))];
    this.reveal();
    this.draw();
    this.choose(this.picked);
  }

  /** Scroll as little as it takes to see the row that is picked. */
  reveal() {
    const top = Math.max(0, this.position) * ROW_HEIGHT;
    const { scrollTop, clientHeight } = this.place;
    if (top < scrollTop) this.place.scrollTop = top;
    else if (top + ROW_HEIGHT > scrollTop + clientHeight) this.place.scrollTop = top + ROW_HEIGHT - clientHeight;
  }

  draw() {
    const { scrollTop, clientHeight } = this.place;
    const first = Math.max(0, Math.floor(scrollTop / ROW_HEIGHT) - SPARE_ROWS);
    const last = Math.min(this.order.length, Math.ceil((scrollTop + clientHeight) / ROW_HEIGHT) + SPARE_ROWS);
    const shown = [];
    for (let position = first; position < last; position++) shown.push(this.item(position));
    if (!this.order.length) shown.push(element("p", { class: "nothing" }, "Nothing fits."));
    this.rows.replaceChildren(...shown);
    if (byId("picked")) this.place.setAttribute("aria-activedescendant", "picked");
    else this.place.removeAttribute("aria-activedescendant");
  }

  item(position) {
    const row = this.order[position];
    const { rows } = this.archive;
    const verdict = rows.correct[row] ? "correct" : "wrong";
    const facts = [this.archive.origin(row)];
    facts.push(rows.calls[row] ? plural(rows.calls[row], "call") : "no call");
    if (rows.failed[row]) facts.push(plural(rows.failed[row], "error"));
    if (rows.corrected[row]) facts.push("self-corrected");
    if (rows.reward[row] !== null) facts.push(signed(rows.reward[row]));
    if (rows.length[row] !== null) facts.push(`${whole(rows.length[row])} tokens`);
    const picked = row === this.picked;
    return element(
      "div",
      {
        class: picked ? "item picked" : "item",
        ...(picked && { id: "picked" }),
        role: "option",
        "aria-selected": picked,
        "aria-posinset": position + 1,
        "aria-setsize": this.order.length,
        "data-position": position,
        style: `top:${position * ROW_HEIGHT}px`,
      },
      element("span", { class: `dot ${verdict}`, title: verdict }, verdict === "correct" ? "✓" : "✗"),
      element("span", { class: "line" }, this.archive.problem(row).text),
      element("span", { class: "facts-line" }, facts.join(" · ")),
    );
  }
}
