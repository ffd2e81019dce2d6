// The trajectories of this page. The list's columns are unpacked at once, texts and tokens when they are read.

const CHUNKS_KEPT = 32; // about 200 kB of JSON each

class Archive {
  /** @param columns {runs, problems, rows}: `rows` has an array for each column, and a row number is an index in it. */
  constructor({ runs, problems, rows }) {
    Object.assign(this, { runs, problems, rows });
    this.size = rows.run.length;
    this.chunks = new Map(); // name -> promise of its values, the one read last at the end
  }

  static async open() {
    return new Archive(await unpack("columns"));
  }

  problem(row) {
    return this.problems[this.rows.problem[row]];
  }

  /** Where a trajectory comes from: `ReTool · held-out · step 20`. */
  origin(row) {
    const { run, origin, step } = this.rows;
    const parts = [this.runs[run[row]], origin[row]];
    if (step[row] !== null) parts.push(`step ${step[row]}`);
    return parts.join(" · ");
  }

  async text(row) {
    return (await this.chunk(this.rows.chunk[row]))[this.rows.place[row]];
  }

  /** Per-token data; null where there are none. */
  async tokens(row) {
    const name = this.rows.token_chunk[row];
    return name === null ? null : (await this.chunk(name))[this.rows.token_place[row]];
  }

  chunk(name) {
    const values = this.chunks.get(name) ?? unpack(name);
    this.chunks.delete(name);
    this.chunks.set(name, values);
    if (this.chunks.size > CHUNKS_KEPT) this.chunks.delete(this.chunks.keys().next().value);
    return values;
  }

  /** The other responses to the same problem. */
  others(row) {
    this.ofProblem ??= Map.groupBy(this.rows.problem.keys(), (each) => this.rows.problem[each]);
    return this.ofProblem.get(this.rows.problem[row]).filter((each) => each !== row);
  }

  /** Whom to read it beside: itself at the other end of training, else in another run, else another sample. */
  counterpart(row) {
    const { run, origin, step, sample } = this.rows;
    const distance = (each) =>
      (run[each] === run[row] && step[each] !== step[row] ? 0 : run[each] !== run[row] ? 1e6 : 2e6) +
      (origin[each] === origin[row] ? 0 : 1e5) -
      Math.min(Math.abs(step[each] - step[row]), 1e4) +
      (sample[each] === sample[row] ? 0 : 0.5);
    return this.others(row).sort((a, b) => distance(a) - distance(b))[0] ?? null;
  }
}

/** The JSON that the element `id` holds, deflated and in base64. */
async function unpack(id) {
  const packed = Uint8Array.from(atob(byId(id).textContent), (byte) => byte.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).json();
}
