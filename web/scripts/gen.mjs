// Writes src/api/schema.d.ts from the hub's OpenAPI document, or with --check fails when the committed file is stale.
// The document is OpenAPI 2 (protoc-gen-openapiv2); openapi-typescript reads 3, so it is converted in memory.
import { readFile, writeFile } from "node:fs/promises";
import openapiTS, { astToString } from "openapi-typescript";
import swagger2openapi from "swagger2openapi";

const source = new URL("../../proto/waybill.swagger.json", import.meta.url);
const target = new URL("../src/api/schema.d.ts", import.meta.url);

const document = JSON.parse(await readFile(source, "utf8"));
const { openapi } = await swagger2openapi.convertObj(document, { patch: true, warnOnly: true });
const text = `// Generated from proto/waybill.swagger.json by "npm run gen". Do not edit.\n\n${astToString(await openapiTS(openapi))}`;

if (process.argv.includes("--check")) {
  const have = await readFile(target, "utf8").catch(() => "");
  if (have !== text) {
    console.error('src/api/schema.d.ts is stale: run "npm run gen" and commit it.');
    process.exit(1);
  }
  console.log("src/api/schema.d.ts is fresh.");
} else {
  await writeFile(target, text);
  console.log(`wrote ${target.pathname}`);
}
