// Elements and numbers. What models wrote becomes part of the page through `element` only: as text, never as HTML.

const byId = (id) => document.getElementById(id);

/** An element with properties (or attributes, for names that are none) and children: elements and texts; null: none. */
function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== ""));
  return node;
}

const option = (value, label) => element("option", { value }, label);

const whole = (value) => value.toLocaleString("en-US", { maximumFractionDigits: 0 });
const signed = (value, digits = 2) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);
const plural = (value, noun) => `${whole(value)} ${noun}${value === 1 ? "" : "s"}`;

function seconds(value) {
  if (value < 1) return `${whole(value * 1000)} ms`;
  return value < 100 ? `${value.toFixed(1)} s` : `${whole(value)} s`;
}

/** The browser gets to draw and to answer before what comes next. */
const breath = () => new Promise((done) => setTimeout(done));
