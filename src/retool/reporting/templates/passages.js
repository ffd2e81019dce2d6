// What was written, as text: reasoning, highlighted code, results with their verdicts.

const verdictOf = (status) =>
  element("span", { class: `status ${status === "ok" ? "good" : "bad"}` }, status.replaceAll("_", " "));

/** The passages of a span, code set apart. */
function passagesView({ passages }, text) {
  return passages.map((passage) =>
    passage.code === undefined ? element("pre", {}, passage.text) : codeView(passage, text),
  );
}

function codeView({ code, call, marks }, text) {
  const pieces = [];
  let at = 0;
  for (let i = 0; i < marks.length; i += 2) {
    const piece = code.slice(at, (at += marks[i + 1]));
    pieces.push(marks[i] ? element("span", { class: marks[i] }, piece) : piece);
  }
  return element(
    "div",
    { class: "call" },
    callLine(call, text),
    element("pre", { class: "code" }, element("code", {}, ...pieces)),
  );
}

/** Which call it is, what it is for, what it took, and which error it mends. */
function callLine(index, { calls, corrections }) {
  const { purpose, queue, run } = calls[index];
  const facts = [calls.length > 1 ? `call ${index + 1}` : "call", purpose];
  if (run !== undefined) facts.push(`ran ${seconds(run)}`);
  if (queue >= 0.001) facts.push(`waited ${seconds(queue)}`);
  const mended = corrections.filter(({ fixed }) => fixed === index);
  return element(
    "p",
    { class: "call-line" },
    facts.filter(Boolean).join(" · "),
    mended.map(({ failed }) => element("span", { class: "mends" }, `mends call ${failed + 1}`)),
  );
}

/** What became of the calls that end here, and where an error was mended. */
function endings({ ended }, { calls, corrections }) {
  return ended.flatMap((index) => [
    verdictOf(calls[index].status),
    ...corrections
      .filter(({ failed }) => failed === index)
      .map(({ fixed, diagnosis }) =>
        element("span", { class: "mends", title: diagnosis }, `mended by call ${fixed + 1}`),
      ),
  ]);
}
