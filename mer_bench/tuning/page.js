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

function mixed(low, high, share) {
  const parts = (text) => [1, 3, 5].map((place) => parseInt(text.slice(place, place + 2), 16));
  const [from, to] = [parts(low), parts(high)];
  return `rgb(${from.map((value, place) => Math.round(value + share * (to[place] - value))).join(",")})`;
}

// What the page says of a trace in `meta`: a colour of its own, or its place between the weakest and the strongest.
function paint(trace, colour) {
  const [low, high] = [colour("--low"), colour("--high")];
  for (const part of [trace.marker, trace.line]) {
    if (part && part.colorscale) Object.assign(part, { colorscale: [[0, low], [1, high]], reversescale: false });
  }
  const { tone, share } = trace.meta || {};
  if (tone === undefined && share === undefined) return;
  const own = tone === undefined ? mixed(low, high, share) : colour(tone);
  trace.line = { ...trace.line, color: own };
  trace.marker = { ...trace.marker, color: own };
}

function logarithmic(axis, traces) {
  const values = traces.flatMap((trace) => trace.x).filter((value) => value > 0);
  const wide = Math.max(...values) > 100 * Math.min(...values);
  return { dtick: wide ? 1 : "D2", exponentformat: "power", ...axis };
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
    for (const trace of figure.data) paint(trace, colour);
    const small = box.parentElement.className === "small";
    const broad = box.parentElement.className === "broad";
    const margin = broad ? { l: 60, r: 12, t: 24, b: 90 } : { l: 8, r: 12, t: small || narrow ? 12 : 40, b: 8 };
    const legend = { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 };
    const layout = { margin, legend, ...figure.layout, template, dragmode: false, autosize: true };
    if (layout.xaxis && layout.xaxis.type === "log") {
      layout.xaxis = logarithmic(layout.xaxis, figure.data);
    }
    const buttons = { displayModeBar: !small && !narrow, displaylogo: false, modeBarButtons: [["toImage"]] };
    Plotly.react(box, figure.data, layout, { responsive: true, ...buttons });
  }
}

draw();
for (const query of ["(prefers-color-scheme: dark)", "print"]) {
  window.matchMedia(query).addEventListener("change", draw);
}
