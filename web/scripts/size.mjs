// Fails when the scripts that the first page needs weigh more than the budget, gzipped.
import { readFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";

const budgetKB = 150;
const dist = new URL("../dist/", import.meta.url);
const manifest = JSON.parse(await readFile(new URL(".vite/manifest.json", dist), "utf8"));

const files = new Set();
const visit = (key) => {
  const chunk = manifest[key];
  if (files.has(chunk.file)) return;
  files.add(chunk.file);
  for (const imported of chunk.imports ?? []) visit(imported);
};
const entry = Object.keys(manifest).find((key) => manifest[key].isEntry);
visit(entry);

const weigh = async (file) => gzipSync(await readFile(new URL(file, dist)), { level: 9 }).length / 1000;
let total = 0;
for (const file of files) {
  const kb = await weigh(file);
  total += kb;
  console.log(`${kb.toFixed(1).padStart(7)} kB gz  ${file}`);
}
console.log(`${total.toFixed(1).padStart(7)} kB gz  entry, budget ${budgetKB} kB`);
for (const chunk of Object.values(manifest)) {
  if (chunk.file.endsWith(".js") && !files.has(chunk.file)) {
    console.log(`${(await weigh(chunk.file)).toFixed(1).padStart(7)} kB gz  ${chunk.file} (lazy)`);
  }
}
if (total > budgetKB) {
  console.error("The entry bundle is over its budget.");
  process.exit(1);
}
