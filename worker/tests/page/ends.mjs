// Songs that are canceled, refused or fail; a connection and a session that end in between; a reload; links; dropped
// songs; the list in the browser.

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";

import { checkFocus, checkView, config, inBrowser, signIn, song, upload, waitForState } from "./browser.mjs";

await inBrowser(async (page, context) => {
  await signIn(page);
  const [first, canceled, failing] = config.songs;
  const name = (file) => path.basename(file);
  const press = (action, file) => page.getByRole("button", { name: `${action}: ${name(file)}` }).click();

  // The processor is held when it has begun the first song.
  const queue = [
    [first, "Fetching the song"],
    [canceled, "Queued, 1 song before it"],
    [failing, "Queued, 2 songs before it"],
  ];
  for (const [file, state] of queue) {
    await upload(page, file);
    await waitForState(page, name(file), state);
  }
  await press("Cancel", canceled);
  await waitForState(page, name(canceled), "Canceled");

  await upload(page, config.no_audio);
  const refused = song(page, name(config.no_audio));
  await refused.getByText("This file is not audio.").waitFor();
  await press("Try again", config.no_audio);
  await refused.getByText("This file is not audio.").waitFor();
  await checkView(page);
  await press("Remove from list", config.no_audio);
  await refused.waitFor({ state: "detached" });
  await checkFocus(page, `[aria-label="Cancel: ${name(failing)}"]`);

  await context.setOffline(true);
  await page.getByText("The service cannot be reached.").waitFor();
  await context.setOffline(false);
  await page.getByText("The service cannot be reached.").waitFor({ state: "hidden" });

  await context.clearCookies();
  await page.getByText("Your session has ended. Sign in again.").waitFor();
  await signIn(page);
  await page.reload();
  await waitForState(page, name(first), "Fetching");
  await waitForState(page, name(canceled), "Canceled");
  await waitForState(page, name(failing), "Queued");

  const stored = await page.evaluate(() => JSON.parse(localStorage.getItem("songs:acme")));
  for (const kept of stored) assert.deepEqual(Object.keys(kept).sort(), ["id", "name", "state"]);
  const { id } = stored.find((kept) => kept.name === name(failing));
  const inputs = fs.readdirSync(config.inputs).filter((file) => file.startsWith(`${id}_input`));
  assert.ok(inputs.length > 0, "no staged input");
  for (const input of inputs) fs.rmSync(path.join(config.inputs, input));
  fs.rmSync(config.hold);
  await waitForState(page, name(first), "Finished");
  await waitForState(page, name(failing), "Failed");
  await song(page, name(failing)).getByText("The song was deleted before it was separated.").waitFor();
  await checkView(page);

  await press("Delete", canceled);
  await song(page, name(canceled)).waitFor({ state: "detached" });
  await checkDroppedSongs(page, first);
  await checkLinks(page);
  await page.getByRole("button", { name: "Clear the list" }).click();
  await page.getByText("No songs yet.").waitFor();
  await checkFocus(page, "#songs-title");
  assert.equal(await page.evaluate(() => localStorage.getItem("songs:acme")), null);
});

/** Whether a request posts a song. */
function isPost(request) {
  return request.method() === "POST" && request.url().endsWith("/v1/tasks");
}

/** A song whose response was lost has one task; a service without Idempotency-Key gets requests without. */
async function checkLinks(page) {
  const keys = [];
  page.on("request", (request) => isPost(request) && keys.push(request.headers()["idempotency-key"]));
  const add = async (file) => {
    await page.getByLabel("Link to a song").fill(`http://songs.invalid/${file}?token=1`);
    await page.keyboard.press("Enter");
  };
  const loseResponse = async (route) => {
    await route.fetch();
    await route.abort();
  };
  await page.route("**/v1/tasks", loseResponse, { times: 1 });
  await add("My%20Song.mp3");
  await waitForState(page, "My Song.mp3", "Not added");
  const repeated = page.waitForResponse("**/v1/tasks");
  await page.getByRole("button", { name: "Try again: My Song.mp3" }).click();
  assert.equal(await (await repeated).headerValue("idempotency-replayed"), "true");
  assert.ok(keys[0] && keys[0] === keys[1], `different keys: ${keys}`);
  // The name is never resolved, so the link is fetched again and again.
  await waitForState(page, "My Song.mp3", "Fetching the song");
  await page.getByRole("button", { name: "Cancel: My Song.mp3" }).click();
  await waitForState(page, "My Song.mp3", "Canceled");

  const key = (route) => route.request().headers()["idempotency-key"];
  await page.route("**/v1/tasks", (route) => (key(route) ? route.fulfill({ status: 400 }) : route.continue()));
  for (const file of ["second.mp3", "third.mp3"]) {
    await add(file);
    await waitForState(page, file, "Fetching the song");
    await page.getByRole("button", { name: `Cancel: ${file}` }).click();
    await waitForState(page, file, "Canceled");
  }
  // The second song is posted again without its key, the third one has none.
  assert.ok(keys[2] && keys[2] !== keys[0]);
  assert.deepEqual(keys.slice(3), [undefined, undefined]);
}

/** Songs that are dropped on the page are uploaded, two at a time. */
async function checkDroppedSongs(page, file) {
  let uploads = 0;
  let mostUploads = 0;
  page.on("request", (request) => isPost(request) && (mostUploads = Math.max(mostUploads, (uploads += 1))));
  page.on("response", (response) => isPost(response.request()) && (uploads -= 1));
  const names = [1, 2, 3, 4].map((number) => `dropped ${number}.wav`);
  const base64 = fs.readFileSync(file).toString("base64");
  const dataTransfer = await page.evaluateHandle(
    ([names, base64]) => {
      const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
      const transfer = new DataTransfer();
      for (const name of names) transfer.items.add(new File([bytes], name, { type: "audio/wav" }));
      return transfer;
    },
    [names, base64],
  );
  await page.dispatchEvent("body", "drop", { dataTransfer });
  for (const name of names) await waitForState(page, name, "Finished");
  assert.equal(mostUploads, 2);
}
