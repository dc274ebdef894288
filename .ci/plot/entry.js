// The marks that mer_bench/leaderboard/page/drawings.js draws with; what is not named here is left out of the file.
export { axisX, axisY, dot, gridX, gridY, line, link, plot, pointer, ruleX, ruleY, text, tickX, tip } from "@observablehq/plot";
