// Reading a trajectory, alone or beside another response to the same problem.

class Reader {
  constructor(place, archive) {
    Object.assign(this, { place, archive, row: null, beside: null, view: "text", query: "" });
    this.views = Object.entries(VIEWS).map(([view, { label }]) =>
      element("button", { type: "button", "data-view": view, onclick: () => this.look(view) }, label),
    );
    this.partner = element("select", { id: "beside", "aria-label": "read beside", onchange: () => this.compare() });
    this.back = element("button", { type: "button", class: "back", onclick: () => this.onback?.() }, "‹ List");
    this.legend = element("p", { class: "legend-line" });
    this.body = element("div", { class: "columns" });
    const views = element("div", { class: "views", role: "group", "aria-label": "what to see" }, ...this.views);
    place.append(element("div", { class: "toolbar" }, this.back, views, this.partner, this.legend), this.body);
  }

  /** Read `row`, alone. */
  async read(row) {
    Object.assign(this, { row, beside: null });
    this.partner.replaceChildren(...this.partners());
    this.partner.disabled = this.partner.length === 1;
    await this.draw();
    this.place.scrollTop = 0;
  }

  partners() {
    const { rows } = this.archive;
    const others = this.archive.others(this.row);
    const verdict = (row) => (rows.correct[row] ? "correct" : "wrong");
    const label = (row) => `${this.archive.origin(row)} · sample ${rows.sample[row]} · ${verdict(row)}`;
    const many = `Beside… (${plural(others.length, "other")} of this problem)`;
    const first = option("", others.length ? many : "No other response to this problem");
    return [first, ...others.map((row) => option(row, label(row)))];
  }

  compare() {
    this.beside = this.partner.value === "" ? null : Number(this.partner.value);
    return this.draw();
  }

  /** Beside its counterpart, or alone again. */
  toggleComparison() {
    const counterpart = this.beside === null ? this.archive.counterpart(this.row) : null;
    this.partner.value = counterpart ?? "";
    return this.compare();
  }

  look(view) {
    this.view = view;
    return this.draw();
  }

  /** The next view that can be had of this trajectory. */
  nextView() {
    const possible = this.views.filter((button) => !button.disabled).map((button) => button.dataset.view);
    return this.look(possible[(possible.indexOf(this.view) + 1) % possible.length]);
  }

  async draw() {
    const rows = [this.row, this.beside].filter((row) => row !== null);
    const key = (this.drawing = rows.join());
    const texts = await Promise.all(rows.map((row) => this.archive.text(row)));
    const tokens = await Promise.all(rows.map((row) => this.archive.tokens(row)));
    if (key !== this.drawing) return; // somebody has gone on meanwhile
    for (const button of this.views) {
      const { view } = button.dataset;
      const reason = missing(view, this.archive, this.row, tokens[0]);
      Object.assign(button, { disabled: Boolean(reason), title: reason, ariaPressed: view === this.view });
    }
    this.legend.textContent = "";
    const columns = rows.map((row, i) => this.column(row, texts[i], tokens[i]));
    this.body.classList.toggle("two", columns.length === 2);
    this.body.replaceChildren(...columns);
    highlightFound(this.body, this.query);
  }

  column(row, text, tokens) {
    const reason = missing(this.view, this.archive, row, tokens);
    const made = VIEWS[this.view].column && !reason ? tokenViews(this.view, tokens, text.in_loss) : null;
    this.legend.textContent ||= made?.legend ?? (reason && `${VIEWS[this.view].label}: ${reason}.`);
    return element(
      "article",
      { class: "trajectory" },
      this.head(row, text),
      text.prompt === null ? null : promptView(text.prompt),
      text.spans.map((span) => spanView(span, text, made)),
    );
  }

  head(row, text) {
    const { rows } = this.archive;
    const { text: question, answer: reference, source } = this.archive.problem(row);
    const correct = Boolean(rows.correct[row]);
    const meta = [this.archive.origin(row), source, `sample ${rows.sample[row]}`];
    meta.push(`ended by ${rows.stop[row].replaceAll("_", " ")}`);
    if (!text.token_exact) meta.push("not token-exact");
    if (text.in_loss === false) meta.push("left out of the loss");
    return element(
      "header",
      {},
      element("span", { class: `verdict ${correct ? "good" : "bad"}` }, correct ? "correct" : "wrong"),
      element("h3", { class: "question" }, question),
      element("p", { class: "meta" }, meta.filter(Boolean).join(" · "), element("code", {}, text.id)),
      element("dl", { class: "outcome" }, ...outcome(rows, row, text, reference)),
    );
  }
}

function outcome(rows, row, text, reference) {
  const facts = [["answer", rows.answer[row] ?? "none"], ["reference", reference]];
  for (const [name, value] of Object.entries(text.rewards)) {
    facts.push([name === "total" ? "reward" : name, value === null ? "–" : signed(value)]);
  }
  if (rows.length[row] !== null) facts.push(["tokens", whole(rows.length[row])]);
  const { seconds: all, tool_seconds: tools } = text.timing;
  if (all !== undefined) facts.push(["time", seconds(all)]);
  if (tools !== undefined && rows.calls[row]) facts.push(["of it in tools", seconds(tools)]);
  if (rows.gap[row] !== null) facts.push(["mean log-prob gap", `${rows.gap[row].toPrecision(2)} nats`]);
  return facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)));
}

const promptView = (prompt) =>
  element(
    "details",
    { class: "block prompt" },
    element("summary", { class: "who" }, "Prompt", element("span", { class: "aside" }, "not trained on")),
    element("pre", {}, prompt),
  );

function spanView(span, text, tokens) {
  const { author, tokens: count } = span;
  return element(
    "div",
    { class: `block ${author}` },
    element(
      "p",
      { class: "who" },
      author === "model" ? "Model" : "Interpreter",
      count === null ? null : element("span", { class: "aside" }, plural(count, "token")),
      author === "model" ? null : element("span", { class: "aside" }, "not trained on"),
      endings(span, text),
    ),
    tokens ? tokens.span(span) : passagesView(span, text),
  );
}
