import { existsSync } from "node:fs";
import { defineConfig } from "@playwright/test";

// e2e/run starts the real binary with its demo and says where it is.
const installed = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const executablePath = installed.find((path) => path && existsSync(path));

export default defineConfig({
  testDir: "e2e",
  forbidOnly: true,
  retries: 0,
  workers: 1,
  timeout: 60_000,
  expect: { timeout: 15_000 },
  reporter: "list",
  use: {
    browserName: "chromium",
    ...(process.env.WAYBILL_URL ? { baseURL: process.env.WAYBILL_URL } : {}),
    trace: "retain-on-failure",
    launchOptions: { args: ["--no-sandbox"], ...(executablePath ? { executablePath } : {}) },
  },
});
