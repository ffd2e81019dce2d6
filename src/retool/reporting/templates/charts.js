// Charts: Vega-Lite draws them one after the other, so that the page answers while it does.

async function drawCharts() {
  const { config, charts } = JSON.parse(byId("drawings").textContent);
  const options = {
    actions: false,
    ast: true, // expressions are interpreted: the page's content security policy forbids eval
    config,
    defaultStyle: false,
    mode: "vega-lite",
    renderer: "svg", // coloured by CSS variables, so that it follows the theme and prints sharply
    tooltip: { disableDefaultStyle: true, formatTooltip },
  };
  for (const place of document.querySelectorAll("[data-chart]")) {
    const spec = { width: "container", ...charts[place.dataset.chart] };
    try {
      await window.vegaEmbed(place, spec, options);
    } catch (error) {
      place.textContent = `This chart could not be drawn: ${error.message}`;
    }
    await breath();
  }
  document.documentElement.dataset.charts = "drawn";
}

/** Vega's tooltip takes HTML; `escape` is the one that it would use itself. */
function formatTooltip(value, escape) {
  const rows = Object.entries(value).map(
    ([name, text]) => `<tr><th>${escape(name)}</th><td>${escape(String(text))}</td></tr>`,
  );
  return `<table>${rows.join("")}</table>`;
}
