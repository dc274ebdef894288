"use strict";
// Draws with Observable Plot. Colours are the style sheet's variables, so that a change of theme needs no new drawing.
const data = JSON.parse(document.getElementById("data").textContent);
const FEWEST = 240; // pixels, below which nothing can be read
const LETTER = 6.6; // pixels of a letter at the drawings' size, a little more than they need

const two = (value) => value.toFixed(2);
const shortened = (label, most) => (label.length > most ? `${label.slice(0, Math.max(1, most - 1))}…` : label);

// What is drawn together: a name, the box, and how, given its width; drawings that follow the filter are drawn again.
const drawings = [];

function draws(id, draw, followsRows = false) {
  const box = document.getElementById(id);
  if (box) drawings.push({ box, draw, followsRows, width: 0 });
}

function redraw(only = () => true) {
  for (const each of drawings) {
    if (!only(each)) continue;
    each.width = Math.max(FEWEST, Math.floor(each.box.clientWidth));
    const drawn = each.draw(each.width);
    each.box.replaceChildren(...(drawn ? [drawn] : []));
  }
}

const LOOK = { fontSize: "12px", overflow: "visible", background: "transparent" };
const base = (width) => ({ width, style: LOOK, marginTop: 24, marginRight: 16, marginBottom: 36, marginLeft: 44 });
const grid = { stroke: "var(--line)", strokeOpacity: 1 };
const tips = { fill: "var(--raised)", stroke: "var(--line-strong)", fontSize: 12, lineHeight: 1.35 };

function shownRows() {
  const lines = [...document.querySelectorAll("#scores tbody tr")].filter((row) => !row.hidden);
  return lines.map((row) => Number(row.dataset.row)).sort((a, b) => a - b).map((place) => data.rows[place]);
}

// Rows far below the others stand at the edge, with their score in words, so that they flatten nothing.
function floorOf(rows) {
  const floor = data.floor;
  return floor !== null && rows.some((row) => row.score < floor) && rows.some((row) => row.score >= floor) ? floor : null;
}

// --- score against cost ---

function front(points) {
  const found = [];
  for (const point of [...points].sort((a, b) => a.x - b.x || b.y - a.y)) {
    if (!found.length || point.y > found[found.length - 1].y) found.push(point);
  }
  return found;
}

// Labels that overlap no dot and no other label: those of the front first, then the others from the best.
function placed(points, first, plot, width) {
  const [x, y] = [plot.scale("x").apply, plot.scale("y").apply];
  const boxes = points.map((each) => ({ left: x(each.x) - 4, right: x(each.x) + 4, top: y(each.y) - 4, bottom: y(each.y) + 4 }));
  first.forEach((point, place) => { // nor the line
    const next = first[place + 1];
    if (!next || point.far) return;
    boxes.push({ left: x(point.x), right: x(next.x), top: y(point.y) - 2, bottom: y(point.y) + 2 });
    boxes.push({ left: x(next.x) - 2, right: x(next.x) + 2, top: y(next.y), bottom: y(point.y) });
  });
  const kept = [];
  for (const point of [...first, ...points.filter((each) => !first.includes(each))]) {
    const [label, px, py] = [shortened(point.label, 22), x(point.x), y(point.y)];
    const long = label.length * LETTER;
    const sides = [[-8, 0, "end"], [8, 0, "start"], [0, -12, "middle"], [0, 13, "middle"], [-4, -12, "end"], [6, 12, "start"]];
    for (const [dx, dy, anchor] of first.includes(point) ? sides : [sides[1], sides[0], ...sides.slice(2)]) {
      const left = px + dx - (anchor === "end" ? long : anchor === "middle" ? long / 2 : 0);
      const box = { left, right: left + long, top: py + dy - 7, bottom: py + dy + 7 };
      const clear = boxes.every((b) => b.right < box.left || b.left > box.right || b.bottom < box.top || b.top > box.bottom);
      if (!clear || left < 46 || box.right > width + 12) continue;
      boxes.push(box);
      kept.push({ ...point, text: label, dx, dy, anchor });
      break;
    }
  }
  return kept;
}

function costText(value, orLess) {
  const [unit, factor] = [["", 1], ["k", 1e3], ["M", 1e6], ["G", 1e9]].findLast(([, least]) => least === 1 || value >= least);
  return `${orLess ? "≤ " : ""}${+(value / factor).toPrecision(2)}${unit && ` ${unit}`}`;
}

function costDrawing(field, least, told) {
  return (width) => {
    const rows = shownRows().filter((row) => row[field] !== null);
    if (!rows.length) return null;
    const floor = floorOf(rows);
    const lowest = floor === null ? 0 : Math.min(...rows.map((row) => row.score).filter((score) => score >= floor));
    const highest = Math.max(...rows.map((row) => row.score));
    const edge = lowest - Math.max(0.3, 0.15 * (highest - lowest));
    const points = rows.map((row) => {
      const far = floor !== null && row.score < floor;
      return { name: row.label, label: far ? `${row.label} ↓ ${two(row.score)}` : row.label, far, score: row.score,
        x: Math.max(least, row[field]), y: far ? edge : row.score, told: told(row) };
    });
    const best = front(points);
    const line = best.filter((each) => !each.far);
    const xs = points.map((each) => each.x);
    const [low, high] = [Math.min(...xs), Math.max(...xs)];
    const room = Math.max(1.25, (high / low) ** 0.06);
    const options = (labels) => ({
      ...base(width),
      height: Math.round(Math.min(360, Math.max(280, width * 0.62))),
      x: { type: "log", domain: [low / room, high * room], label: null, insetLeft: 20 },
      y: { domain: [floor === null ? Math.min(...points.map((each) => each.y)) : edge, highest], label: null, inset: 10 },
      marks: [
        Plot.gridY({ ...grid, ticks: 6 }),
        Plot.axisX({ ticks: Math.max(2, Math.round(width / 90)), tickFormat: (value) => costText(value, value <= least && rows.some((row) => row[field] < least)), tickSize: 0, tickPadding: 8 }),
        Plot.axisY({ ticks: 6, tickSize: 0 }),
        Plot.line(line, { x: "x", y: "y", curve: "step-after", stroke: "var(--accent)", strokeWidth: 1.5 }),
        Plot.dot(points, {
          x: "x", y: "y", r: 4.5, stroke: "var(--paper)", strokeWidth: 1, symbol: (each) => (each.far ? "triangle" : "circle"),
          rotate: (each) => (each.far ? 180 : 0),
          fill: (each) => (best.includes(each) ? "var(--accent)" : "var(--faint)"),
        }),
        ...labels.map((each) => Plot.text([each], {
          x: "x", y: "y", text: "text", dx: each.dx, dy: each.dy, textAnchor: each.anchor,
          fill: best.some((other) => other.name === each.name) ? "var(--ink)" : "var(--muted)",
          stroke: "var(--paper)", strokeWidth: 3,
        })),
        Plot.tip(points, Plot.pointer({ x: "x", y: "y", title: (each) => `${each.name}\n${two(each.score)} %\n${each.told}`, ...tips })),
      ],
    });
    return Plot.plot(options(placed(points, best, Plot.plot(options([])), width)));
  };
}

draws("draw-parameters", costDrawing("parameters", 1, (row) => `${row.parametersText} parameters`), true);
draws("draw-train_seconds", costDrawing("seconds", 0.01, (row) => `${row.seconds} s of training`), true);

// --- rows one below the other ---

function labelRoom(labels, width) {
  const most = Math.max(6, Math.floor((width * 0.36) / LETTER));
  const long = Math.min(most, Math.max(...labels.map((each) => each.length)));
  return { marginLeft: Math.ceil(long * LETTER) + 14, name: (label) => shortened(label, long) };
}

function lines(labels, width) {
  const { marginLeft, name } = labelRoom(labels, width);
  return {
    options: { ...base(width), marginLeft, height: 60 + 24 * labels.length, marginBottom: 30, y: { type: "band", domain: labels, label: null, padding: 0.1 } },
    axes: [
      Plot.gridX({ ...grid, ticks: Math.max(3, Math.round(width / 110)) }),
      Plot.axisX({ ticks: Math.max(3, Math.round(width / 110)), label: null, tickSize: 0 }),
      Plot.axisY({ tickFormat: name, tickSize: 0, label: null, tickPadding: 10, lineWidth: 100 }),
    ],
  };
}

draws("draw-seeds", (width) => {
  const rows = shownRows();
  if (!rows.length) return null;
  const { options, axes } = lines(rows.map((row) => row.label), width);
  const floor = floorOf(rows);
  const near = rows.filter((row) => floor === null || row.score >= floor);
  const far = rows.filter((row) => !near.includes(row));
  const runs = near.flatMap((row) => row.runs.map((run) => ({ label: row.label, score: run.score, seed: run.seed })));
  const sure = near.filter((row) => row.low !== null);
  return Plot.plot({
    ...options,
    x: { nice: true, label: null },
    marks: [
      ...axes,
      Plot.ruleX(near.slice(0, 1).map((row) => row.score), { stroke: "var(--accent)", strokeDasharray: "2,3" }),
      Plot.link(sure, { x1: "low", x2: "high", y1: "label", y2: "label", stroke: "var(--range)", strokeWidth: 5, strokeLinecap: "round" }),
      Plot.dot(runs, { x: "score", y: "label", r: 3.5, fill: "var(--accent)", fillOpacity: 0.55, stroke: "var(--paper)", strokeWidth: 0.5 }),
      Plot.text(far, { frameAnchor: "left", y: "label", text: (row) => `← ${two(row.score)}`, dx: 4, fill: "var(--muted)" }),
      Plot.tickX(near, { x: "score", y: "label", stroke: "var(--ink)", strokeWidth: 2, inset: 4 }),
      Plot.tip(runs, Plot.pointer({ x: "score", y: "label", title: (run) => `${run.label}\nseed ${run.seed}: ${two(run.score)} %`, ...tips })),
    ],
  });
}, true);

draws("draw-gap", (width) => {
  const found = (data.rows ?? []).flatMap((row) =>
    row.runs.filter((run) => run.best !== null).map((run) => ({ ...run, name: `${row.label}, seed ${run.seed}` })));
  if (!found.length) return null;
  const { options, axes } = lines(found.map((run) => run.name), width);
  const key = [{ text: "epoch chosen on dev", fill: "var(--accent)" }, { text: "epoch chosen on test", fill: "var(--second)" }];
  const drawn = Plot.plot({
    ...options,
    x: { nice: true, label: null, inset: 6 },
    marks: [
      ...axes,
      Plot.link(found, { x1: "score", x2: "best", y1: "name", y2: "name", stroke: "var(--second)", strokeOpacity: 0.5, strokeWidth: 3 }),
      Plot.dot(found, { x: "best", y: "name", r: 5, fill: "var(--paper)", stroke: "var(--second)", strokeWidth: 2, symbol: "diamond" }),
      Plot.dot(found, { x: "score", y: "name", r: 4.5, fill: "var(--accent)" }),
      Plot.tip(found, Plot.pointer({ x: "best", y: "name", title: (run) => `${run.name}\n${two(run.score)} → ${two(run.best)} %`, ...tips })),
    ],
  });
  return withLegend(drawn, key);
});

function withLegend(drawn, entries) {
  const box = document.createElement("div");
  const legend = document.createElement("p");
  legend.className = "legend";
  for (const { text, fill } of entries) {
    const item = document.createElement("span");
    item.textContent = text;
    item.style.setProperty("--colour", fill);
    legend.append(item);
  }
  box.append(legend, drawn);
  return box;
}

// --- training curves of a row ---

function chosenRow(id) {
  const choice = document.getElementById(id);
  return choice ? data.rows[Number(choice.value)] : null;
}

function curveDrawing(field) {
  return (width) => {
    const row = chosenRow("training-row");
    if (!row) return null;
    const points = row.runs.flatMap((run) =>
      run.epochs.map((epoch, place) => ({ seed: run.seed, epoch, value: run[field][place], chosen: epoch === run.epoch })));
    const known = points.filter((each) => each.value !== null);
    if (!known.length) return null;
    const audit = field === "dev" ? row.runs.flatMap((run) => run.audit.map(([epoch, value]) => ({ seed: run.seed, epoch, value }))) : [];
    return Plot.plot({
      ...base(width),
      height: Math.round(Math.min(320, Math.max(240, width * 0.55))),
      x: { label: "epoch →", inset: 4 },
      y: { nice: true, label: null },
      marks: [
        Plot.gridY({ ...grid, ticks: 5 }),
        Plot.axisX({ ticks: Math.round(width / 80), tickSize: 0, label: "epoch →", tickFormat: (each) => (Number.isInteger(each) ? String(each) : "") }),
        Plot.axisY({ ticks: 5, tickSize: 0, label: null }),
        Plot.line(points, { x: "epoch", y: "value", z: "seed", stroke: "var(--accent)", strokeOpacity: 0.55, strokeWidth: 1.5 }),
        Plot.line(audit, { x: "epoch", y: "value", z: "seed", stroke: "var(--second)", strokeOpacity: 0.7, strokeDasharray: "4,3" }),
        Plot.dot(known.filter((each) => each.chosen), { x: "epoch", y: "value", r: 4.5, fill: "var(--accent)", stroke: "var(--paper)" }),
        Plot.tip(known, Plot.pointer({ x: "epoch", y: "value", title: (each) => `seed ${each.seed}, epoch ${each.epoch}\n${+each.value.toPrecision(4)}`, ...tips })),
      ],
    });
  };
}

draws("draw-dev", curveDrawing("dev"));
draws("draw-loss", curveDrawing("loss"));
document.getElementById("training-row")?.addEventListener("change", () =>
  redraw((each) => ["draw-dev", "draw-loss"].includes(each.box.id)));

// --- missing modalities ---

const MARKS = ["circle", "square", "triangle", "diamond", "star", "wye", "cross"];

draws("draw-missing", (width) => {
  const curves = data.missing ?? [];
  if (!curves.length) return null;
  const tone = (place) => `var(--tone-${place % 7})`;
  const points = curves.flatMap(({ label, rates }, place) => rates.map(([rate, score]) => ({ label, rate, score, place })));
  const drawn = Plot.plot({
    ...base(width),
    height: 340,
    x: { label: "share of missing modalities →", inset: 8 },
    y: { nice: true, label: null },
    symbol: { legend: false },
    marks: [
      Plot.gridY({ ...grid, ticks: 6 }),
      Plot.axisX({ tickFormat: (each) => `${Math.round(100 * each)} %`, tickSize: 0, ticks: Math.round(width / 90), label: "share of missing modalities →" }),
      Plot.axisY({ ticks: 6, tickSize: 0, label: null }),
      ...curves.map((curve, place) => [
        Plot.line(curve.rates, { x: "0", y: "1", stroke: tone(place), strokeWidth: 1.75 }),
        Plot.dot(curve.rates, { x: "0", y: "1", fill: tone(place), symbol: MARKS[place % MARKS.length], r: 4 }),
      ]).flat(),
      Plot.tip(points, Plot.pointer({ x: "rate", y: "score", title: (each) => `${each.label}\n${Math.round(100 * each.rate)} % missing: ${two(each.score)} %`, ...tips })),
    ],
  });
  return withLegend(drawn, curves.map(({ label }, place) => ({ text: label, fill: tone(place) })));
});

// --- critical difference ---

draws("draw-across", (width) => {
  const across = data.across;
  if (!across) return null;
  const { models, cliques, criticalDifference } = across;
  const half = Math.ceil(models.length / 2);
  const most = Math.floor((width * 0.3) / LETTER);
  const long = Math.min(most, Math.max(...models.map((each) => each.label.length)) + 6);
  const side = Math.ceil(long * LETTER) + 8;
  const [top, step] = [26 + 9 * cliques.length, 20];
  const low = 1;
  const high = Math.max(models.length, Math.ceil(models[models.length - 1].rank));
  const height = top + step * half + 70;
  const x = (rank) => side + ((rank - low) / (high - low || 1)) * (width - 2 * side);
  const y = (pixels) => pixels;
  const named = models.map((each, place) => {
    const left = place < half;
    const level = top + step * (left ? place + 1 : models.length - place);
    const room = Math.max(3, long - 6);
    return { x: x(each.rank), level, end: left ? side : width - side, left, rank: each.rank,
      text: left ? `${shortened(each.label, room)} ${two(each.rank)}` : `${two(each.rank)} ${shortened(each.label, room)}` };
  });
  const bars = cliques.filter(([first, last]) => last > first)
    .map(([first, last], place) => ({ x1: x(models[first].rank) - 3, x2: x(models[last].rank) + 3, y: 14 + 9 * place }));
  const ticks = Array.from({ length: high - low + 1 }, (_, place) => low + place);
  const every = Math.ceil(ticks.length / Math.max(2, (width - 2 * side) / 26));
  const shift = 40;
  const ruler = criticalDifference === null ? [] : [{ x1: x(low), x2: Math.min(width - 4, x(low + criticalDifference)) }];
  const plain = { x: "x", y: "y" };
  return Plot.plot({
    width, height, margin: 0, style: LOOK,
    x: { axis: null, domain: [0, width], range: [0, width] },
    y: { axis: null, domain: [0, height], range: [0, height] },
    marks: [
      Plot.link([{ x1: x(low), x2: x(high) }], { x1: "x1", x2: "x2", y1: shift, y2: shift, stroke: "var(--ink)" }),
      Plot.link(ticks, { x1: (each) => x(each), x2: (each) => x(each), y1: shift - 5, y2: shift, stroke: "var(--ink)" }),
      Plot.text(ticks.filter((_, place) => place % every === 0), { x: (each) => x(each), y: shift - 13, text: String, fill: "var(--muted)" }),
      Plot.link(named, { x1: "x", x2: "x", y1: shift, y2: (each) => shift + each.level, stroke: "var(--faint)" }),
      Plot.link(named, { x1: "x", x2: "end", y1: (each) => shift + each.level, y2: (each) => shift + each.level, stroke: "var(--faint)" }),
      Plot.dot(named, { ...plain, y: shift, r: 3, fill: "var(--accent)" }),
      Plot.text(named.filter((each) => each.left), { x: side - 6, y: (each) => shift + each.level, text: "text", textAnchor: "end", fill: "var(--ink)" }),
      Plot.text(named.filter((each) => !each.left), { x: width - side + 6, y: (each) => shift + each.level, text: "text", textAnchor: "start", fill: "var(--ink)" }),
      Plot.link(bars, { x1: "x1", x2: "x2", y1: (each) => shift + each.y, y2: (each) => shift + each.y, stroke: "var(--second)", strokeWidth: 4, strokeLinecap: "round" }),
      Plot.link(ruler, { x1: "x1", x2: "x2", y1: 14, y2: 14, stroke: "var(--muted)", strokeWidth: 2 }),
      Plot.text(ruler, { x: "x1", y: 5, text: () => `critical difference ${two(criticalDifference)}`, textAnchor: "start", fill: "var(--muted)" }),
    ],
  });
});

// --- tables that are drawn ---

function confusionTable() {
  const row = chosenRow("confusion-row");
  if (!row) return;
  const table = document.createElement("table");
  table.className = "heat confusion";
  const caption = table.createCaption().appendChild(document.createElement("span"));
  caption.textContent = `${row.label}: share of each true class, in percent; at the right its utterances, over ${row.runs.length || 1} seeds`;
  const head = table.createTHead().insertRow();
  const header = (line, text, scope) => {
    const cell = document.createElement("th");
    cell.scope = scope;
    cell.textContent = text;
    line.append(cell);
  };
  header(head, "true ↓ predicted →", "col");
  for (const label of [...data.classes, "all"]) header(head, label, "col");
  const body = table.createTBody();
  row.confusion.forEach((counts, place) => {
    const line = body.insertRow();
    header(line, data.classes[place], "row");
    const all = counts.reduce((sum, each) => sum + each, 0);
    counts.forEach((count, column) => {
      const cell = line.insertCell();
      const share = all ? (100 * count) / all : 0;
      cell.textContent = all ? share.toFixed(1) : "–";
      cell.title = `${count} of ${all}`;
      cell.style.setProperty("--heat", `${share.toFixed(1)}%`);
      cell.className = [column === place ? "right" : "", share > 73 ? "strong" : share > 59.5 ? "middle" : "", count ? "" : "none"].filter(Boolean).join(" ");
    });
    line.insertCell().textContent = String(all);
    line.lastChild.className = "sum";
  });
  const box = document.createElement("div");
  box.className = "scroll";
  box.tabIndex = 0;
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", `Confusion matrix of ${row.label}`);
  box.append(table);
  document.getElementById("confusion-table").replaceChildren(box);
}

function heatRows() {
  const shown = new Set(shownRows());
  for (const row of document.querySelectorAll("table.heat:not(.confusion) tbody tr")) {
    row.hidden = !shown.has(data.rows[Number(row.dataset.row)]);
  }
}

document.getElementById("confusion-row")?.addEventListener("change", confusionTable);
confusionTable();
if (data.rows) heatRows();
redraw();

let waiting = 0;
new ResizeObserver(() => {
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(() =>
    redraw((each) => Math.max(FEWEST, Math.floor(each.box.clientWidth)) !== each.width));
}).observe(document.getElementById("main"));
document.addEventListener("rows", () => {
  if (!data.rows) return;
  heatRows();
  redraw((each) => each.followsRows);
});
// On paper everything that is folded is open, and drawings have its width.
window.addEventListener("beforeprint", () => {
  for (const each of document.querySelectorAll("main details:not(.columns)")) {
    if (!each.open) each.dataset.printing = "";
    each.open = true;
  }
  redraw();
});
window.addEventListener("afterprint", () => {
  for (const each of document.querySelectorAll("[data-printing]")) {
    each.open = false;
    delete each.dataset.printing;
  }
  redraw();
});
