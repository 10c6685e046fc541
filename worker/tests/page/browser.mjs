// Shared by all scripts: Chromium, and checks that hold for every view of the page.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";

/** From the test in main.rs. */
export const config = JSON.parse(process.argv[2]);

const require = createRequire(path.join(config.packages, "index.js"));
const { chromium } = require("playwright-core");
const axe = require("axe-core");

const STEP_LIMIT_MS = 180_000;
const DESKTOP = { width: 900, height: 900 };
const PHONE = { width: 360, height: 740 };

/** Runs `test(page, context)` in a new browser; fails if the page broke its policy, called another host or threw. */
export async function inBrowser(test) {
  const browser = await chromium.launch({
    executablePath: config.chromium,
    args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"],
  });
  try {
    const context = await browser.newContext({ viewport: DESKTOP });
    context.setDefaultTimeout(STEP_LIMIT_MS);
    const page = await context.newPage();
    const own = [config.url, config.without_keys].filter(Boolean);
    const errors = [];
    page.on("pageerror", (error) => errors.push(error.stack));
    page.on("console", (message) => /Content Security Policy/.test(message.text()) && errors.push(message.text()));
    page.on("request", (request) => own.some((url) => request.url().startsWith(url)) || errors.push(request.url()));
    page.on("dialog", (dialog) => dialog.accept());
    await page.goto(config.url);
    await test(page, context);
    assert.deepEqual(errors, []);
  } finally {
    await browser.close();
  }
}

export async function signIn(page) {
  await page.getByLabel("API key").fill(config.key);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "Add songs" }).waitFor();
}

export async function upload(page, file) {
  await page.getByLabel("Choose songs").setInputFiles(file);
}

/** The list item of a song. */
export function song(page, name) {
  return page.getByRole("listitem").filter({ has: page.getByRole("heading", { name }) });
}

/** Waits until the state of a song matches. */
export async function waitForState(page, name, expected) {
  await song(page, name).locator(".state", { hasText: expected }).waitFor();
}

/** Fails unless the element that matches the selector has the focus. */
export async function checkFocus(page, selector) {
  const { matches, focused } = await page.evaluate((selector) => {
    const { activeElement } = document;
    return { matches: activeElement.matches(selector), focused: activeElement.outerHTML.slice(0, 200) };
  }, selector);
  assert.ok(matches, `the focus is on ${focused}, not ${selector}`);
}

/** Checks the rules of axe-core in light and dark, that live regions are rendered, and the width of a phone. */
export async function checkView(page) {
  await page.evaluate(axe.source);
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    // To preload the styles of waveforms, axe-core would add style elements, which the page's policy forbids.
    const { violations } = await page.evaluate(() => window.axe.run({ preload: false }));
    const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
    assert.deepEqual(found, [], colorScheme);
  }
  // Screen readers do not announce the text of a region that appears with it.
  const regions = page.locator("[role=status], [role=alert], [aria-live]");
  const displays = await regions.evaluateAll((all) => all.map((region) => getComputedStyle(region).display));
  assert.ok(displays.length >= 3 && !displays.includes("none"), `live regions: ${displays}`);
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize(PHONE);
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(width <= PHONE.width, `the page is ${width} px wide on a screen of ${PHONE.width} px`);
  await page.setViewportSize(DESKTOP);
}

/** Writes a screenshot for the documentation, if the test asks for it. */
export async function screenshot(page, name, { colorScheme = "light", isPhone = false } = {}) {
  if (!config.screenshots) return;
  await page.emulateMedia({ colorScheme });
  await page.setViewportSize(isPhone ? PHONE : DESKTOP);
  // Waveforms are drawn again 100 ms after their size changed.
  await page.waitForTimeout(500);
  await page.locator("body").screenshot({ path: path.join(config.screenshots, `${name}.png`) });
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize(DESKTOP);
}
