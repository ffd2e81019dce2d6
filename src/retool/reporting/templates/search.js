// Full-text search: first what the list knows, then chunk after chunk of texts, while the page goes on answering.

class Search {
  /** `progress(found, share)` is told the rows found so far, and which share of the texts has been read. */
  constructor(archive, progress) {
    Object.assign(this, { archive, progress, run: 0 });
    this.texts = new Map(); // chunk -> its texts in lower case, by place
    this.rowsOf = Map.groupBy(archive.rows.chunk.keys(), (row) => archive.rows.chunk[row]);
  }

  /** Look for `query` as it is, upper or lower case. A later search ends this one; an empty one finds everything. */
  async start(query) {
    const run = ++this.run;
    const needle = query.trim().toLowerCase();
    if (!needle) return this.progress(null, 1);
    const found = new Set();
    const { problems, rows } = this.archive;
    const named = problems.map((problem) => Object.values(problem).join("\n").toLowerCase().includes(needle));
    rows.problem.forEach((problem, row) => named[problem] && found.add(row));
    let read = 0;
    for (const [chunk, members] of this.rowsOf) {
      const texts = await this.read(chunk);
      if (run !== this.run) return;
      for (const row of members) if (texts[rows.place[row]].includes(needle)) found.add(row);
      if (++read % 8 === 0) {
        this.progress(found, read / this.rowsOf.size);
        await breath();
        if (run !== this.run) return;
      }
    }
    this.progress(found, 1);
  }

  async read(chunk) {
    if (!this.texts.has(chunk)) this.texts.set(chunk, (await unpack(chunk)).map(searchable));
    return this.texts.get(chunk);
  }
}

/** What a trajectory can be found by, beside its problem. */
function searchable({ id, spans, calls }) {
  const written = spans.flatMap(({ passages }) => passages.map(({ text, code }) => text ?? code));
  return [id, ...written, ...calls.flatMap(({ purpose, status }) => [purpose, status])].join("\n").toLowerCase();
}

/** Mark `query` in what is being read, where the browser can do that without touching it. */
function highlightFound(place, query) {
  if (!CSS.highlights) return;
  CSS.highlights.delete("found");
  const needle = query.trim().toLowerCase();
  if (!needle) return;
  const ranges = [];
  const walker = document.createTreeWalker(place, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.toLowerCase();
    for (let at = text.indexOf(needle); at >= 0; at = text.indexOf(needle, at + needle.length)) {
      const range = new Range();
      range.setStart(walker.currentNode, at);
      range.setEnd(walker.currentNode, Math.min(at + needle.length, walker.currentNode.length));
      ranges.push(range);
    }
  }
  CSS.highlights.set("found", new Highlight(...ranges));
}
