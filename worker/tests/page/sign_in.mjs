// A wrong key is refused; the right one signs in until the user signs out. Without keys there is nothing to sign in to.

import assert from "node:assert/strict";

import { checkView, config, inBrowser, signIn } from "./browser.mjs";

await inBrowser(async (page) => {
  const responses = [];
  page.on("response", (response) => response.status() === 401 && responses.push(response));
  await checkView(page);
  await page.getByLabel("API key").fill("sk_wrong");
  await page.keyboard.press("Enter");
  await page.getByRole("alert").filter({ hasText: "This API key is not valid." }).waitFor();
  assert.equal(await page.getByRole("heading", { name: "Add songs" }).isVisible(), false);
  // The browser's own password dialog would cover the form.
  assert.ok(responses.length > 0);
  for (const response of responses) {
    assert.doesNotMatch((await response.headerValue("www-authenticate")) ?? "", /basic/i);
  }
  await checkView(page);

  await signIn(page);
  await page.getByText("Signed in as acme").waitFor();
  await checkView(page);
  await page.reload();
  await page.getByText("Signed in as acme").waitFor();
  const cookies = await page.evaluate(() => document.cookie);
  assert.equal(cookies, "", "scripts can read the session");

  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("API key").waitFor();
  await page.reload();
  await page.getByLabel("API key").waitFor();

  await page.goto(config.without_keys);
  await page.getByRole("heading", { name: "Add songs" }).waitFor();
  assert.equal(await page.getByRole("button", { name: "Sign out" }).isVisible(), false);
});
