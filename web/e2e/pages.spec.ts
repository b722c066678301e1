import { readFileSync } from "node:fs";
import AxeBuilder from "@axe-core/playwright";
import { expect, type Page, test } from "@playwright/test";

const info = JSON.parse(readFileSync(process.env.WAYBILL_INFO ?? "", "utf8")) as {
  url: string;
  token: string;
  decision_id: string;
};
const waybill = `/decisions/${info.decision_id}`;
const sizes = { wide: { width: 1280, height: 900 }, narrow: { width: 390, height: 844 } };

/** Signs in by the link that the hub prints. */
async function enter(page: Page, path: string) {
  await page.goto(`${path}#token=${info.token}`);
}

/** What went wrong that no assertion looks at: errors on the console, requests that left this origin. */
const trouble: string[] = [];
test.beforeEach(({ page }) => {
  trouble.length = 0;
  page.on("pageerror", (e) => trouble.push(`page error: ${e.message}`));
  page.on("console", (m) => {
    if (m.type() === "error" && !m.text().includes("Failed to load resource")) trouble.push(`console: ${m.text()}`);
  });
  page.on("request", (r) => {
    if (!r.url().startsWith(info.url)) trouble.push(`request to ${r.url()}`);
  });
});
test.afterEach(() => expect(trouble).toEqual([]));

test("a wrong token is refused in words, a right one leads to the page that was asked for", async ({ page }) => {
  await page.goto("/decisions");
  await page.getByLabel("API token").fill("wb_nonsense");
  await page.getByRole("button", { name: "Sign in" }).click();
  await expect(page.getByRole("alert")).toContainText("token");
  await page.getByLabel("API token").fill(info.token);
  await page.getByRole("button", { name: "Sign in" }).click();
  await expect(page.getByRole("heading", { name: "Decisions" })).toBeVisible();
  await page.getByRole("button", { name: "Sign out" }).click();
  await expect(page.getByLabel("API token")).toBeVisible();
});

test("the link with a token signs in and takes the token out of the address", async ({ page }) => {
  await enter(page, waybill);
  await expect(page.getByRole("heading", { level: 1 })).toContainText("ORD-123 was decided as");
  expect(page.url()).not.toContain("token");
});

test("home says what needs somebody, who answers, and verifies the log", async ({ page }) => {
  await enter(page, "/");
  const attention = page.getByRole("region", { name: "Needs somebody" });
  await expect(attention).toContainText("warehouse_queue at route is not what late-risk@v1 was trained on");
  await expect(page.getByRole("region", { name: "Who answers now" })).toContainText("late-risk@v2 answers");
  const log = page.getByRole("region", { name: "Decision log" });
  await log.getByRole("button", { name: "Verify the whole log now" }).click();
  await expect(log.getByText("Whole", { exact: true })).toBeVisible();
  await expect(log).toContainText("every hash, tile and the signed root agree");
});

test("search finds an order, the rules' decisions, and says when nothing matches", async ({ page }) => {
  await enter(page, "/decisions");
  await page.getByLabel("Order").fill("ORD-123");
  await page.getByRole("button", { name: "Search" }).click();
  await expect(page).toHaveURL(/business_key=ORD-123/);
  const rows = page.getByRole("region", { name: "Decisions found" }).locator("tbody tr");
  await expect(rows.first()).toContainText("ORD-123");
  for (const text of await rows.allTextContents()) expect(text).toContain("ORD-123");

  await page.getByLabel("Order").fill("");
  await page.getByLabel("Answered by the rules only").check();
  await page.getByRole("button", { name: "Search" }).click();
  await expect(page).toHaveURL(/fallback_only=true/);
  await expect(rows.first()).toContainText("rules");
  const before = await rows.count();
  await page.getByRole("button", { name: "Show more" }).click();
  await expect.poll(() => rows.count()).toBeGreaterThan(before);

  await page.getByLabel("Order").fill("no such order");
  await page.getByRole("button", { name: "Search" }).click();
  await expect(page.getByText("No decision matches.")).toBeVisible();
});

test("the waybill shows reasons that add up, inputs with versions, approval, gates and lineage", async ({ page }) => {
  await enter(page, waybill);
  const why = page.getByRole("region", { name: "Why" });
  await expect(why).toContainText("slack hours");
  await expect(why).toContainText("Adds up: start plus all contributions is the score");
  await why.getByText("The same as a table").click();
  await expect(why.getByRole("region", { name: "Contributions to the score" })).toBeVisible();
  const approval = page.getByRole("region", { name: "On whose approval" });
  await expect(approval).toContainText("bob");
  await expect(approval).toContainText("Since then revoked");
  const inputs = page.getByRole("region", { name: "Inputs of the decision" });
  await expect(inputs.getByRole("row", { name: /warehouse queue/ })).toContainText("warehouse_load@v1");
  await expect(page.getByRole("region", { name: "Verdicts of the gates" })).toContainText("embargo");
  const lineage = page.getByRole("region", { name: "Where it came from" });
  for (const stage of ["Data", "Feature views", "Training set", "Models", "Approvals", "This decision"]) {
    await expect(lineage.getByRole("heading", { name: stage, exact: true })).toBeVisible();
  }
});

test("the proof holds, computed by the browser", async ({ page }) => {
  await enter(page, waybill);
  const proof = page.getByRole("region", { name: "Proof", exact: true });
  await expect(proof.getByText("Verified in this browser")).toBeVisible();
  await expect(proof.locator("li.good")).toHaveCount(6);
  await expect(proof).toContainText("Ed25519 signature valid");
});

for (const [what, step, change] of [
  ["entry", "leaf-hash", (p: Proof) => ({ ...p, leaf: p.leaf.replace("WH-NY-1", "WH-LA-1") })],
  ["path", "checkpoint", (p: Proof) => ({ ...p, path: [...p.path].reverse() })],
  ["checkpoint", "checkpoint", (p: Proof) => ({ ...p, checkpoint: p.checkpoint.replace(`\n${p.size}\n`, "\n1\n") })],
  ["key", "key", (p: Proof) => ({ ...p, verifier_key: p.verifier_key.replace(/\+\w{8}\+/, "+00000000+") })],
] as const) {
  test(`a proof with another ${what} is found out`, async ({ page }) => {
    await page.route("**/proof", async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, json: change((await response.json()) as Proof) });
    });
    await enter(page, waybill);
    const proof = page.getByRole("region", { name: "Proof", exact: true });
    await expect(proof.getByText("Does not hold")).toBeVisible();
    await expect(proof.locator(`[data-step="${step}"]`)).toHaveClass("bad");
  });
}

interface Proof {
  leaf: string;
  path: string[];
  checkpoint: string;
  size: string;
  verifier_key: string;
}

test("a replay gives the same score bit for bit", async ({ page }) => {
  await enter(page, waybill);
  const replay = page.getByRole("region", { name: "Run it again" });
  await replay.getByRole("button", { name: "Replay" }).click();
  await expect(replay.getByText("Same bit for bit")).toBeVisible();
});

test("a decision of the rules says so and claims no contributions", async ({ page }) => {
  await enter(page, "/decisions?fallback_only=true");
  await page.getByRole("region", { name: "Decisions found" }).getByRole("link").first().click();
  await expect(page.getByRole("region", { name: "Why" })).toContainText("The rules answered, because");
  await expect(page.getByText("Verified in this browser")).toBeVisible();
  await expect(page.getByRole("button", { name: "Replay" })).toBeDisabled();
});

test("unknown addresses and decisions are said in words", async ({ page }) => {
  await enter(page, "/decisions/01a20d44-0000-7000-8000-000000000000");
  await expect(page.getByRole("alert")).toContainText("Could not load decision");
  await page.goto("/no/such/page");
  await expect(page.getByRole("heading", { name: "There is no such page" })).toBeVisible();
});

test("the keyboard alone leads from home to a waybill", async ({ page }) => {
  await enter(page, "/");
  await expect(page.getByRole("region", { name: "Last decisions" }).getByRole("link").nth(1)).toBeVisible();
  await page.keyboard.press("Tab");
  await expect(page.getByText("Skip to the content")).toBeFocused();
  await page.keyboard.press("Enter");
  const target = page.locator("tbody th a").first();
  for (let i = 0; i < 40 && !(await target.evaluate((e) => e === document.activeElement)); i++) {
    await page.keyboard.press("Tab");
  }
  await expect(target).toBeFocused();
  await page.keyboard.press("Enter");
  await expect(page.getByRole("heading", { level: 1 })).toContainText("was decided as");
});

const pages = { home: "/", decisions: "/decisions", waybill, login: "/login", missing: "/no/such/page" };
for (const [name, path] of Object.entries(pages)) {
  for (const [width, size] of Object.entries(sizes)) {
    for (const scheme of ["light", "dark"] as const) {
      test(`${name}, ${width}, ${scheme}: accessible, and nothing runs out of the page`, async ({ page }) => {
        await page.setViewportSize(size);
        await page.emulateMedia({ colorScheme: scheme });
        if (name === "login") await page.goto(path);
        else await enter(page, path);
        if (name === "waybill") await expect(page.getByText("Verified in this browser")).toBeVisible();
        await page.waitForLoadState("networkidle");
        const report = await new AxeBuilder({ page }).analyze();
        expect(report.violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.target).join(", ")}`)).toEqual([]);
        const overflow = await page.evaluate(
          () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
        );
        expect(overflow).toBeLessThanOrEqual(0);
        if (process.env.WAYBILL_PICTURES && ["home", "decisions", "waybill"].includes(name)) {
          if (scheme === "light" || name === "waybill") {
            const file = `${process.env.WAYBILL_PICTURES}/${name}-${size.width}${scheme === "dark" ? "-dark" : ""}.png`;
            await page.screenshot({ path: file, fullPage: true });
          }
        }
      });
    }
  }
}
