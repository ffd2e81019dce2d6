"use strict";
(() => {
  const { config, charts } = JSON.parse(document.getElementById("drawings").textContent);
  const options = {
    actions: false,
    ast: true, // expressions are interpreted: the page's content security policy forbids eval
    config,
    defaultStyle: false,
    mode: "vega-lite",
    renderer: "svg", // coloured by CSS variables, so that it follows the theme and prints sharply
    tooltip: { disableDefaultStyle: true, formatTooltip: tooltip },
  };

  for (const place of document.querySelectorAll("[data-chart]")) {
    const spec = { width: "container", ...charts[place.dataset.chart] };
    window.vegaEmbed(place, spec, options).catch((error) => {
      place.textContent = `This chart could not be drawn: ${error.message}`;
    });
  }

  /** Vega's tooltip takes HTML; `escape` is the one that it would use itself. */
  function tooltip(value, escape) {
    const rows = Object.entries(value).map(
      ([name, text]) => `<tr><th>${escape(name)}</th><td>${escape(String(text))}</td></tr>`,
    );
    return `<table>${rows.join("")}</table>`;
  }

  const trajectories = [...document.querySelectorAll("details.trajectory")];
  const toggle = document.getElementById("toggle");
  if (toggle) {
    toggle.hidden = false;
    toggle.addEventListener("click", () => {
      const open = trajectories.some((details) => !details.open);
      for (const details of trajectories) details.open = open;
      toggle.textContent = open ? "Close all" : "Open all";
    });
  }

  // On paper nothing can be opened: print everything, then put it back as it was.
  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = trajectories.filter((details) => !details.open);
    for (const details of closed) details.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const details of closed) details.open = false;
  });
})();
