"use strict";
// The colours stand in the style sheet alone; Optuna's own, made for white paper, are exchanged for them.
const NAMED = { "#2F3B52": "--ink", "#555": "--muted", "#888": "--muted", "#cccccc": "--muted", white: "--paper" };

function recoloured(value, colour) {
  if (typeof value === "string") return value in NAMED ? colour(NAMED[value]) : value;
  if (Array.isArray(value)) return value.map((each) => recoloured(each, colour));
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, recoloured(each, colour)]));
  }
  return value;
}

function draw() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const narrow = window.innerWidth < 600;
  const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--line"), automargin: true };
  const template = {
    layout: {
      font: { color: colour("--ink"), size: narrow ? 11 : 13, family: "system-ui, sans-serif" },
      paper_bgcolor: colour("--paper"), plot_bgcolor: colour("--paper"),
      colorway: [colour("--first"), colour("--second")],
      xaxis: axis, yaxis: axis,
      hoverlabel: { font: { size: 12 } },
    },
  };
  for (const box of document.querySelectorAll(".plot")) {
    const figure = recoloured(JSON.parse(box.nextElementSibling.textContent), colour);
    const scale = [[0, colour("--low")], [1, colour("--high")]];
    for (const trace of figure.data) {
      if (trace.marker && trace.marker.colorscale) trace.marker.colorscale = scale;
    }
    const margin = { l: 8, r: 12, t: 12, b: 8, ...(figure.layout.margin || {}) };
    const legend = { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 };
    const layout = { margin, legend, ...figure.layout, template, dragmode: false, autosize: true };
    Plotly.react(box, figure.data, layout, { responsive: true, displaylogo: false });
  }
}

draw();
for (const query of ["(prefers-color-scheme: dark)", "print"]) {
  window.matchMedia(query).addEventListener("change", draw);
}
