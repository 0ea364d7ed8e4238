// Draws every plot once; colours are CSS variables, so dark mode and paper need no second drawing.
"use strict";
const { config, plots } = JSON.parse(document.getElementById("data").textContent);

async function draw(container) {
  const spec = plots[Number(container.dataset.plot)];
  const result = await window.vegaEmbed(container, spec, {
    config,
    mode: "vega-lite",
    renderer: "svg",
    actions: false,
    defaultStyle: false,
    tooltip: { disableDefaultStyle: true },
  });
  const svg = container.querySelector("svg");
  svg.setAttribute("aria-label", spec.description);
  container.dataset.drawn = "true";
  return result;
}

async function main() {
  for (const container of document.querySelectorAll(".plot")) {
    try {
      await draw(container);
    } catch (error) {
      container.textContent = "This plot could not be drawn; its numbers are in the table.";
      console.error(error);
    }
  }
  document.documentElement.dataset.ready = "true";
}

// Paper shows what a click would.
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details:not([open])")) {
    details.open = true;
    details.dataset.printed = "true";
  }
});
addEventListener("afterprint", () => {
  for (const details of document.querySelectorAll("details[data-printed]")) {
    details.open = false;
    delete details.dataset.printed;
  }
});

main();
