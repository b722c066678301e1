import { readFileSync } from "node:fs";
import AxeBuilder from "@axe-core/playwright";
import { type APIRequestContext, expect, type Page, test } from "@playwright/test";

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

/** The hub's API with the demo's token, for what a page does not do. */
async function call(request: APIRequestContext, path: string, body: object): Promise<Record<string, string>> {
  const response = await request.post(path, { data: body, headers: { Authorization: `Bearer ${info.token}` } });
  expect(response.ok(), await response.text()).toBe(true);
  return response.json();
}

/** Has the demo's endpoint decide an order; `more` overrides fields of the request. */
async function decide(request: APIRequestContext, order: string, more: object): Promise<string> {
  const answer = await call(request, "/v1/decide/route", {
    order_id: order,
    items: [{ sku: "SKU-1", qty: 1 }],
    customer_lat: 40.7128,
    customer_lng: -74.006,
    deadline: new Date(Date.now() + 48 * 3600_000).toISOString(),
    ...more,
  });
  return answer.decision_id ?? "";
}

/** Lets the pages see another answer of the hub than it gave, as an attacker would. */
async function falsify<T>(page: Page, url: string, change: (answer: T) => unknown) {
  await page.route(url, async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, json: change((await response.json()) as T) });
  });
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
  await expect(log).toContainText(
    /[\d,]+ entries, every hash, tile and the signed root agree, and so does every decision's record.* It took/,
  );
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
  await expect(why).toContainText("Adds up: start plus all contributions is the raw score");
  await expect(why).toContainText("raises the score lowers the score");
  await expect(page.locator("header dl")).toContainText("Model score");
  await why.getByText("The same as a table").click();
  await expect(why.getByRole("region", { name: "Contributions to the score" })).toBeVisible();
  const approval = page.getByRole("region", { name: "On whose approval" });
  await expect(approval).toContainText("bob");
  await expect(approval).toContainText("Since then revoked");
  const inputs = page.getByRole("region", { name: "Inputs of the decision" });
  await expect(inputs.getByRole("row", { name: /warehouse queue/ })).toContainText("warehouse_load@v1");
  await expect(inputs.getByRole("row", { name: /warehouse queue/ })).toContainText("before the decision");
  await expect(page.getByRole("region", { name: "Verdicts of the gates" })).toContainText("embargo");
  const lineage = page.getByRole("region", { name: "Where it came from" });
  await expect(lineage.getByRole("heading", { level: 3 })).toHaveText([
    "Sources",
    "Feature views",
    "Training set",
    "Model",
    "Approval",
    "Endpoint",
    "This decision",
  ]);
  await expect(lineage).toContainText(/of late-risk@v1|late-risk@v1 .*bob/);
  await expect(lineage).toContainText("published by otto");
  await expect(lineage).not.toContainText(/trainingset|actor/);
  await lineage.getByRole("link", { name: "late-risk@v1", exact: true }).click();
  await expect(page).toHaveURL(/\/decisions\?model=late-risk%40v1/);
});

test("the proof holds, computed by the browser", async ({ page }) => {
  await enter(page, waybill);
  const proof = page.getByRole("region", { name: "Proof", exact: true });
  await expect(proof.getByText("Verified in this browser")).toBeVisible();
  await expect(proof.locator("li.good")).toHaveCount(8);
  await expect(proof).toContainText("Ed25519 signature valid");
  await expect(page.locator("header").getByRole("status")).toHaveText("Verified");
  await expect(page.getByRole("alert")).toHaveCount(0);
});

for (const [what, step, change] of [
  ["entry", "leaf-hash", (p: Proof) => ({ ...p, leaf: p.leaf.replace("WH-NY-1", "WH-LA-1") })],
  ["path", "checkpoint", (p: Proof) => ({ ...p, path: [...p.path].reverse() })],
  ["checkpoint", "checkpoint", (p: Proof) => ({ ...p, checkpoint: p.checkpoint.replace(`\n${p.size}\n`, "\n1\n") })],
  ["record", "record", (p: Proof) => ({ ...p, payload: p.payload.replace("WH-NY-1", "WH-LA-1") })],
  ["absent record", "record", (p: Proof) => ({ ...p, payload: "" })],
  ["key", "key", (p: Proof) => ({ ...p, verifier_key: p.verifier_key.replace(/\+\w{8}\+/, "+00000000+") })],
] as const) {
  test(`a proof with another ${what} is found out`, async ({ page }) => {
    await falsify(page, "**/proof", change);
    await enter(page, waybill);
    const proof = page.getByRole("region", { name: "Proof", exact: true });
    await expect(proof.getByText("Does not hold")).toBeVisible();
    await expect(proof.locator(`[data-step="${step}"]`)).toHaveClass("bad");
    const failed = await proof.locator(`[data-step="${step}"] strong`).textContent();
    await expect(page.getByRole("alert")).toContainText(`Failed step: ${failed}.`);
    await expect(page.locator("header").getByRole("status")).toHaveText("Proof DOES NOT HOLD");
  });
}

test("a page that shows something else than was logged is found out, at its top", async ({ page }) => {
  await falsify<{ decision: Shown }>(page, `**/v1/decisions/${info.decision_id}`, ({ decision }) => {
    decision.summary.score = 0.01;
    decision.request.order_id = "ORD-1";
    for (const i of decision.inputs) if (i.name === "warehouse_queue") i.value = 3;
    return { decision };
  });
  await enter(page, waybill);
  const alarm = page.getByRole("alert");
  await expect(alarm).toContainText("Do not rely on what this page shows");
  await expect(alarm).toContainText("score, request, input warehouse_queue");
  const [box, first] = [await alarm.boundingBox(), await page.getByRole("heading", { level: 1 }).boundingBox()];
  expect(box?.y).toBeLessThan(first?.y ?? 0);
});

interface Shown {
  summary: { score: number };
  request: Record<string, unknown>;
  inputs: { name: string; value: unknown; view: string; sequence: string; sources: string[] }[];
}

interface Proof {
  leaf: string;
  payload: string;
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

test("an expression's input says what it was computed from, and has no commit", async ({ page }) => {
  await falsify<{ decision: Shown }>(page, `**/v1/decisions/${info.decision_id}`, ({ decision }) => {
    for (const i of decision.inputs) if (i.name === "slack_hours") i.sources = ["carrier_lateness@v1", "request"];
    return { decision };
  });
  await enter(page, waybill);
  const row = page.getByRole("region", { name: "Inputs of the decision" }).getByRole("row", { name: /slack hours/ });
  await expect(row).toContainText("computed from carrier_lateness@v1, request");
  await expect(row.locator('[data-head="Commit"]')).toHaveText("–");
});

test("a decision of the rules says why, on whose approval, and claims no contributions", async ({ page }) => {
  await enter(page, "/decisions?fallback_only=true");
  await page.getByRole("region", { name: "Decisions found" }).getByRole("link").first().click();
  await expect(page.getByRole("heading", { level: 1 })).toContainText("by the rules route-rules@v1");
  await expect(page.getByRole("region", { name: "Why" })).toContainText("The rules answered, because");
  const approval = page.getByRole("region", { name: "On whose approval" });
  await expect(approval).toContainText("The model did not answer:");
  await expect(approval).toContainText("Rule setroute-rules@v1");
  await expect(approval).toContainText("Approved bybob");
  await expect(approval.getByText("Still in force")).toBeVisible();
  await expect(page.locator("header dl")).toContainText("Rule score");
  await expect(page.getByText("Verified in this browser")).toBeVisible();
  await expect(page.getByRole("button", { name: "Replay" })).toBeDisabled();
});

test("a blocked decision names the gate and its reason, and makes no facts up", async ({ page, request }) => {
  const id = await decide(request, "ORD-BLOCKED", { country: "XX" });
  await enter(page, `/decisions/${id}`);
  await expect(page.getByRole("heading", { level: 1 })).toContainText("ORD-BLOCKED was blocked by the gate embargo");
  const why = page.getByRole("region", { name: "Why" });
  await expect(why).toContainText("embargo, asked before the model, let nothing be decided: nothing is shipped");
  await expect(why).toContainText("No model was asked.");
  await expect(page.getByText(/Adds up|Contributions are exact|Since then/)).toHaveCount(0);
  await expect(page.locator("header dl")).not.toContainText("core");
  await expect(page.getByRole("button", { name: "Replay" })).toBeDisabled();
  await expect(page.getByText("Verified in this browser")).toBeVisible();
  await page.goto("/decisions?business_key=ORD-BLOCKED");
  await expect(page.getByRole("row", { name: /ORD-BLOCKED/ })).toContainText("gate embargo");
});

test("a time in the address that is none is left out, and said", async ({ page }) => {
  await enter(page, "/decisions?from=garbage&to=2999-01-01T00:00");
  await expect(page.getByRole("alert")).toContainText("“garbage” as “from”");
  await expect(page.getByRole("region", { name: "Decisions found" })).toBeVisible();
  await expect(page.getByLabel("To (UTC)")).toHaveValue(/^2999-01-01T00:00/);
});

test("an answer that cannot be drawn gives words and a way out, not a blank page", async ({ page }) => {
  await falsify(page, `**/v1/decisions/${info.decision_id}`, () => ({ decision: { inputs: 7, summary: {} } }));
  await enter(page, waybill);
  await expect(page.getByRole("alert")).toContainText("A fault in the page");
  await page.getByRole("navigation").getByRole("link", { name: "Decisions" }).click();
  await expect(page.getByRole("region", { name: "Decisions found" })).toBeVisible();
  trouble.length = 0; // the fault itself
});

test("a link with a token works in an open tab, and the token leaves the address", async ({ page }) => {
  await page.goto("/decisions");
  await expect(page.getByLabel("API token")).toBeVisible();
  await page.evaluate((token) => location.assign(`#token=${token}`), info.token);
  await expect(page.getByRole("heading", { name: "Decisions" })).toBeVisible();
  expect(page.url()).not.toContain("token");
});

test("a token that is revoked ends the session in words, with nothing left on the screen", async ({
  page,
  request,
}) => {
  const issued = await call(request, "/v1/tokens", { account: "admin", ttl_seconds: 600 });
  await page.goto(`/#token=${issued.secret}`);
  await expect(page.getByRole("region", { name: "Last decisions" }).getByRole("row").nth(1)).toBeVisible();
  const { token_id } = issued.token as unknown as { token_id: string };
  await call(request, `/v1/tokens/${token_id}:revoke`, {});
  await expect(page.getByRole("alert")).toContainText("Your session has ended:");
  await expect(page.getByLabel("API token")).toBeVisible();
  await expect(page.getByRole("region")).toHaveCount(0);
});

test("who may see little is told so in sentences, and is offered nothing that is refused", async ({
  page,
  request,
}) => {
  const issued = await call(request, "/v1/tokens", { account: "shop", ttl_seconds: 600 });
  await page.goto(`/#token=${issued.secret}`);
  const log = page.getByRole("region", { name: "Decision log" });
  await expect(log).toContainText("Your role does not let you see the log.");
  await expect(log).toContainText("The hub says: No rule lets shop read log.");
  await expect(log.getByRole("button")).toHaveCount(0);
  await expect(page.getByRole("region", { name: "Last decisions" })).toContainText("does not let you see decisions.");
  await page.goto(waybill);
  await expect(page.getByText(/Your role does not let you see decision 0/)).toBeVisible();
});

test("a refused verification is one plain sentence", async ({ page }) => {
  await page.route("**/v1/log:verify", (route) =>
    route.fulfill({ status: 403, json: { detail: "no rule lets x read log" } }),
  );
  await enter(page, "/");
  const log = page.getByRole("region", { name: "Decision log" });
  await log.getByRole("button", { name: "Verify the whole log now" }).click();
  await expect(log.getByRole("status")).toHaveText("Your role does not let you verify the log.");
  await expect(log.getByRole("button")).toBeDisabled();
});

test("the commands that pages name are those of the program", async ({ page }) => {
  await page.goto("/login");
  await expect(page.getByText("waybill token issue ACCOUNT")).toBeVisible();
  await page.route("**/v1/endpoints", (route) => route.fulfill({ json: { endpoints: [] } }));
  await enter(page, "/");
  await expect(page.getByText(/waybill endpoint publish -f \S+ --reason/)).toBeVisible();
});

for (const [width, size] of Object.entries(sizes)) {
  test(`${width}: all bars of the waterfall have one scale`, async ({ page }) => {
    await page.setViewportSize(size);
    await enter(page, waybill);
    const tracks = page.locator(".waterfall .track");
    await expect(tracks).not.toHaveCount(0);
    const boxes = await tracks.evaluateAll((all) => all.map((e) => e.getBoundingClientRect().toJSON() as DOMRect));
    expect(new Set(boxes.map((b) => `${b.left} ${b.width}`)).size).toBe(1);
    expect(boxes[0]?.width).toBeGreaterThan(150);
  });

  for (const path of ["/", "/decisions", waybill]) {
    test(`${width}: no table of ${path === waybill ? "the waybill" : path} hides a column`, async ({ page }) => {
      await page.setViewportSize(size);
      await enter(page, path);
      await expect(page.locator(".scroll:visible").first()).toBeVisible();
      await page.waitForLoadState("networkidle");
      const cut = await page
        .locator(".scroll")
        .evaluateAll((all) =>
          all.filter((e) => e.scrollWidth > e.clientWidth).map((e) => e.getAttribute("aria-label")),
        );
      expect(cut).toEqual([]);
      // Cards keep the meaning of a table for those who do not see it.
      await expect(page.getByRole("columnheader").first()).toBeAttached();
      await expect(page.locator("tbody th:visible").first()).toBeVisible();
    });
  }
}

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
  await expect(page.getByRole("heading", { level: 1 })).toContainText(/was (decided as|blocked)/);
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
