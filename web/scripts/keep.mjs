// vite empties dist; git keeps dist/.keep so that "go build" works without Node. Put it back.
import { writeFile } from "node:fs/promises";

await writeFile(new URL("../dist/.keep", import.meta.url), "");
