// Which trajectories are listed, and in which order.

const ORDERS = {
  recorded: { label: "as recorded", value: null },
  length: { label: "length", value: ({ length, characters }, row) => length[row] ?? characters[row] },
  calls: { label: "calls", value: ({ calls }, row) => calls[row] },
  failed: { label: "errors", value: ({ failed }, row) => failed[row] },
  step: { label: "step", value: ({ step }, row) => step[row] },
  reward: { label: "reward", value: ({ reward }, row) => reward[row] },
  gap: { label: "log-prob gap", value: ({ gap }, row) => gap[row] },
  seconds: { label: "seconds", value: ({ seconds: taken }, row) => taken[row] },
};
const ORIGINS = ["evaluation", "held-out", "rollouts"];

const CODE = {
  ran: ({ ran }, row) => ran[row] > 0,
  none: ({ ran }, row) => ran[row] === 0,
  failed: ({ failed }, row) => failed[row] > 0,
  corrected: ({ corrected }, row) => corrected[row] > 0,
  uncorrected: ({ failed, corrected }, row) => failed[row] > 0 && corrected[row] === 0,
};

/** The rows as recorded: run by run, evaluations first, step by step. */
function recordedOrder({ size, rows }) {
  const order = Array.from({ length: size }, (_, row) => row);
  return order.sort(
    (a, b) =>
      rows.run[a] - rows.run[b] ||
      ORIGINS.indexOf(rows.origin[a]) - ORIGINS.indexOf(rows.origin[b]) ||
      rows.step[a] - rows.step[b] ||
      a - b,
  );
}

/** The orders by which at least one of the trajectories can be told apart. */
function usefulOrders({ rows }) {
  return Object.entries(ORDERS).filter(
    ([, { value }]) => !value || rows.run.some((_, row) => value(rows, row) && value(rows, row) !== value(rows, 0)),
  );
}

/**
 * The rows that fit `wanted` {verdict, code, run, step, order, descending}, in its order; what has no value comes last.
 * `run` is "3" for all of a run, "3 held-out" for a part of it. `found`: the rows that the search has left, null: all.
 */
function selectRows(archive, recorded, wanted, found) {
  const { rows } = archive;
  const [run, origin] = wanted.run.split(" ");
  const step = wanted.step === "" ? null : Number(wanted.step);
  const chosen = recorded.filter(
    (row) =>
      (!found || found.has(row)) &&
      (!wanted.verdict || Boolean(rows.correct[row]) === (wanted.verdict === "correct")) &&
      (!wanted.code || CODE[wanted.code](rows, row)) &&
      (!run || rows.run[row] === Number(run)) &&
      (!origin || rows.origin[row] === origin) &&
      (step === null || rows.step[row] === step),
  );
  const { value } = ORDERS[wanted.order];
  if (!value) return wanted.descending ? chosen.reverse() : chosen;
  const sign = wanted.descending ? -1 : 1;
  const known = chosen.filter((row) => value(rows, row) !== null);
  const unknown = chosen.filter((row) => value(rows, row) === null);
  return [...known.sort((a, b) => sign * (value(rows, a) - value(rows, b))), ...unknown];
}
