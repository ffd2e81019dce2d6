// Token by token: which were trained on, how sure the sampler was, where the learner differs, what they were worth.

const VIEWS = {
  text: { label: "Text" },
  mask: { label: "Mask", column: "pieces", legend: () => "Tokens that are trained on are tinted." },
  logprobs: {
    label: "Log-prob",
    column: "logprobs",
    scale: 100,
    legend: () => "The darker, the less likely when it was sampled: from 0 to −5 nats.",
    reach: () => 5,
  },
  gap: {
    label: "Gap",
    column: "gap",
    scale: 10000,
    legend: (reach) => `Less likely to the learner (orange) or more (teal). Full colour: ${reach} nats.`,
  },
  advantages: {
    label: "Advantage",
    column: "advantages",
    scale: 100,
    legend: (reach) => `Worse than expected (orange) or better (teal). Full colour: ${reach}.`,
  },
};

/** Why a view cannot be had of a trajectory; "": it can. */
function missing(view, archive, row, tokens) {
  const { column } = VIEWS[view];
  if (!column || tokens?.[column]) return "";
  if (archive.rows.length[row] === null) return "only text was recorded, no tokens";
  if (!tokens) return "no room was left in this file for its tokens";
  return column === "logprobs" ? "no log-probs were recorded" : "only known of trajectories that were learned from";
}

/** A function that makes the view of one span after the other, and the legend to them. */
function tokenViews(view, tokens, inLoss) {
  const { column, scale, legend, reach } = VIEWS[view];
  const values = scale ? tokens[column] : [];
  const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) / scale;
  const full = reach ? reach() : largest || 1;
  let at = 0;
  let written = 0; // tokens by the model so far: all columns but `pieces` are over these
  function span({ author, tokens: count }) {
    const pieces = [];
    for (const end = at + count; at < end; at++) {
      const own = author === "model" ? written++ : null;
      const value = own === null || !scale ? null : values[own] / scale;
      const colour = value === null ? tint(own !== null && inLoss !== false) : shade(value / full);
      pieces.push(tokenView(tokens, at, own, colour));
    }
    return element("pre", { class: `tokens ${view}` }, ...pieces);
  }
  const named = typeof tokens.pieces[0] === "number" ? " No tokenizer was at hand: tokens are shown by their ids." : "";
  return { span, legend: legend(full < 0.01 ? full.toExponential(0) : Number(full.toPrecision(2))) + named };
}

const tint = (trained) => ({ class: trained ? "trained" : "masked", share: 0 });
const shade = (part) => ({ class: part < 0 ? "down" : "up", share: Math.min(1, Math.abs(part)) });

function tokenView({ pieces, logprobs, gap, advantages }, index, own, { class: kind, share }) {
  const piece = pieces[index];
  const facts = [typeof piece === "number" ? `id ${piece}` : JSON.stringify(piece)];
  if (own === null) facts.push("masked");
  if (own !== null && logprobs) {
    const logprob = logprobs[own] / 100;
    facts.push(`log-prob ${logprob.toFixed(2)} (${(100 * Math.exp(logprob)).toFixed(0)} %)`);
  }
  if (own !== null && gap) {
    facts.push(`gap ${signed(gap[own] / 10000, 4)}`, `advantage ${signed(advantages[own] / 100)}`);
  }
  const shown = typeof piece === "number" ? `${piece} ` : piece.replaceAll("\n", "⏎\n");
  const style = `--share:${Math.round(65 * share)}%`;
  return element("span", { class: `token ${kind}`, title: facts.join(" · "), style }, shown);
}
