// Writes plot.min.js: Observable Plot with the parts of d3 that it needs, and the licence of each package in it.
import { readFileSync, readdirSync } from "node:fs";
import { build } from "esbuild";

const output = "../../mer_bench/leaderboard/page/plot.min.js";
const options = {
  entryPoints: ["entry.js"],
  bundle: true,
  minify: true,
  format: "iife",
  globalName: "Plot",
  target: "es2020",
  legalComments: "none",
  metafile: true,
};

const { metafile } = await build({ ...options, write: false, outdir: "." });
const used = new Set();
for (const { inputs } of Object.values(metafile.outputs)) {
  for (const [file, { bytesInOutput }] of Object.entries(inputs)) {
    const name = file.match(/node_modules\/((?:@[^/]+\/)?[^/]+)\//)?.[1];
    if (name && bytesInOutput) used.add(name);
  }
}
const packages = [...used].sort().map((name) => {
  const folder = `node_modules/${name}`;
  const { version, license } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
  const file = readdirSync(folder).find((each) => /^licen[cs]e/i.test(each));
  if (!file) throw new Error(`${name} ships no licence text`);
  return { title: `${name} ${version} (${license})`, text: readFileSync(`${folder}/${file}`, "utf8").trim() };
});
const byText = {};
for (const { title, text } of packages) (byText[text] ??= []).push(title);
const notices = Object.entries(byText).map(([text, titles]) => `${titles.join(", ")}\n\n${text}`);
const banner = `/*! Made by .ci/plot/build.js of mer-bench from these packages:\n\n${notices.join("\n\n--\n\n")}\n*/`;
await build({ ...options, banner: { js: banner }, outfile: output });
