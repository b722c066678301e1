import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

// Nothing may be inlined: the pages run under "default-src 'self'" (embed.go), so that even a data: font or an
// inline script is refused by the browser.
export default defineConfig({
  plugins: [react()],
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // dist/.keep lets the Go package build before the pages were; see scripts/keep.mjs.
    emptyOutDir: true,
    manifest: true,
    rollupOptions: {
      output: {
        manualChunks(id) {
          if (/node_modules\/(react|react-dom|scheduler|react-router)\//.test(id)) return "react";
          return undefined;
        },
      },
    },
  },
  server: {
    proxy: {
      "/v1": process.env.WAYBILL_URL ?? "http://127.0.0.1:8080",
      "/log": process.env.WAYBILL_URL ?? "http://127.0.0.1:8080",
    },
  },
  test: { include: ["src/**/*.test.ts"], environment: "node" },
});
