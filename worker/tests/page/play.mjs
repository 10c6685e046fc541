// A song of five minutes is uploaded, separated, played in sync, downloaded, listed after a reload, and deleted.

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";

import { checkFocus, checkView, config, inBrowser, screenshot, signIn, song, upload, waitForState } from "./browser.mjs";

const DURATION_S = 300;
const MOST_APART_S = 0.03;
const UPLOAD_BYTES_PER_S = 20_000_000;

await inBrowser(async (page, context) => {
  await signIn(page);
  const name = path.basename(config.song);
  await uploadSlowly(page, context, name);
  // The processor is held after the separation, so the last progress stays.
  await waitForState(page, name, /^Separating, \d+ %/);
  const progress = song(page, name).getByRole("progressbar");
  assert.ok((await progress.evaluate((bar) => bar.value)) <= 100);
  await checkView(page);
  await screenshot(page, "page-progress");
  fs.rmSync(config.hold);

  const play = page.getByRole("button", { name: `Play ${name}` });
  await play.waitFor();
  await waitForState(page, name, /^Finished/);
  await page.locator(".wave canvas").first().waitFor();
  await checkView(page);
  await checkAudibility(page);
  await checkSeeking(page, name);
  await checkSync(page, name);
  await checkEnd(page, name);
  await page.getByRole("slider", { name: `Position in ${name}` }).fill("125");
  await screenshot(page, "page-player");
  await screenshot(page, "page-player-dark", { colorScheme: "dark" });
  await screenshot(page, "page-player-phone", { isPhone: true });
  await checkDownloads(page, name);

  // Without previews, the stems themselves are played.
  await page.route("**/previews/*", (route) => route.fulfill({ status: 404 }));
  await page.reload();
  await waitForState(page, name, /^Finished/);
  await page.getByRole("button", { name: `Listen: ${name}` }).click();
  await play.click();
  await page.waitForFunction(() => [...document.querySelectorAll("audio")].every((stem) => stem.currentTime > 0.5));
  const [{ id }] = await page.evaluate(() => JSON.parse(localStorage.getItem("songs:acme")));
  await page.getByRole("button", { name: `Delete: ${name}` }).click();
  await page.getByText("No songs yet.").waitFor();
  await checkFocus(page, "#songs-title");
  const response = await context.request.get(`${config.url}/v1/tasks/${id}`);
  assert.equal(response.status(), 404);
});

/** Chooses FLAC with 24 bits, and uploads slowly enough to see the progress. */
async function uploadSlowly(page, context, name) {
  await page.getByLabel("Format").selectOption("FLAC");
  await page.getByLabel("Bit depth").selectOption("24 bits");
  const network = await context.newCDPSession(page);
  const conditions = { offline: false, latency: 0, downloadThroughput: -1, uploadThroughput: UPLOAD_BYTES_PER_S };
  await network.send("Network.emulateNetworkConditions", conditions);
  await upload(page, config.song);
  await waitForState(page, name, /^Uploading, [1-9]\d? %/);
  await waitForState(page, name, /^(Uploaded|Queued|Fetching|Separating)/);
  await network.send("Network.emulateNetworkConditions", { ...conditions, uploadThroughput: -1 });
  await network.detach();
}

/** Time, muted and volume of both media elements. */
function media(page) {
  return page.evaluate(() => {
    const read = (stem) => {
      const { currentTime: time, muted, volume, duration, paused } = document.querySelector(`audio[data-stem=${stem}]`);
      return { time, muted, volume, duration, paused };
    };
    return { vocals: read("vocals"), instrumental: read("instrumental") };
  });
}

async function checkAudibility(page) {
  const muted = async () => {
    const { vocals, instrumental } = await media(page);
    return [vocals.muted, instrumental.muted];
  };
  const press = (name) => page.getByRole("button", { name }).click();
  assert.deepEqual(await muted(), [false, false]);
  await press("Solo vocals");
  assert.deepEqual(await muted(), [false, true]);
  await press("Solo instrumental");
  assert.deepEqual(await muted(), [false, false]);
  await press("Solo vocals");
  assert.deepEqual(await muted(), [true, false]);
  await press("Mute instrumental");
  assert.deepEqual(await muted(), [true, true]);
  await press("Solo instrumental");
  assert.deepEqual(await muted(), [false, true]);
  await press("Mute instrumental");
  await page.getByLabel("Volume of vocals").fill("40");
  const { vocals, instrumental } = await media(page);
  assert.deepEqual([vocals.volume, instrumental.volume], [0.4, 1]);
}

/** Keys and a click on either waveform move both stems. */
async function checkSeeking(page, name) {
  const isAt = async (expected) => {
    const { vocals, instrumental } = await media(page);
    for (const { time } of [vocals, instrumental]) assert.ok(Math.abs(time - expected) < 1, `${time}, not ${expected}`);
  };
  const { vocals } = await media(page);
  assert.ok(Math.abs(vocals.duration - DURATION_S) < 0.05, `${vocals.duration} s`);
  const position = page.getByRole("slider", { name: `Position in ${name}` });
  await position.focus();
  for (const [key, expected] of [["ArrowRight", 5], ["PageUp", 35], ["ArrowLeft", 30], ["End", 300], ["Home", 0]]) {
    await page.keyboard.press(key);
    await isAt(expected);
  }
  for (const [index, part] of [[0, 0.25], [1, 0.75]]) {
    const wave = page.locator(".wave").nth(index);
    const { width, height } = await wave.boundingBox();
    await wave.click({ position: { x: width * part, y: height / 2 } });
    await isAt(DURATION_S * part);
  }
}

/** While both stems play, in all parts of the song, they are at most 30 ms apart. */
async function checkSync(page, name) {
  const position = page.getByRole("slider", { name: `Position in ${name}` });
  await page.getByRole("button", { name: `Play ${name}` }).click();
  const parts = [[0, 3], [60, 3], [120, 20], [180, 3], [240, 3], [290, 3]];
  for (const [start, seconds] of parts) {
    await position.fill(String(start));
    const { apart, end } = await page.evaluate(sample, seconds);
    // One reading may be late by an audio buffer (20 ms); a difference that is heard stays for several readings.
    const worst = Math.max(...apart.slice(2).map((last, index) => Math.min(last, apart[index], apart[index + 1])));
    assert.ok(worst <= MOST_APART_S, `${worst * 1000} ms apart after a seek to ${start} s`);
    assert.ok(apart.length > seconds * 10, `only ${apart.length} samples while both played`);
    assert.ok(end > start + seconds / 2 && end < start + seconds + 1, `${end} s after ${seconds} s from ${start} s`);
    console.log(`from ${start} s: at most ${(worst * 1000).toFixed(1)} ms apart in ${apart.length} samples`);
  }
}

/** The differences of the stems, each 20 ms in which both play; runs in the page. */
async function sample(seconds) {
  const [vocals, instrumental] = ["vocals", "instrumental"].map((stem) => document.querySelector(`audio[data-stem=${stem}]`));
  const apart = [];
  const isPlaying = (media) => !media.paused && !media.seeking;
  const timer = setInterval(() => {
    if (isPlaying(vocals) && isPlaying(instrumental)) apart.push(Math.abs(vocals.currentTime - instrumental.currentTime));
  }, 20);
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  clearInterval(timer);
  return { apart, end: vocals.currentTime };
}

/** At the end of the song it stops, and the next play starts at the beginning. */
async function checkEnd(page, name) {
  await page.getByRole("slider", { name: `Position in ${name}` }).fill(String(DURATION_S - 1));
  await page.getByRole("button", { name: `Play ${name}` }).click();
  await page.getByRole("button", { name: `Pause ${name}` }).click();
  const { vocals } = await media(page);
  assert.ok(vocals.time < 2, `it started at ${vocals.time} s`);
}

async function checkDownloads(page, name) {
  for (const stem of ["vocals", "instrumental"]) {
    const started = page.waitForEvent("download");
    await page.getByRole("link", { name: `Download FLAC: ${stem} of ${name}` }).click();
    const download = await started;
    assert.match(download.suggestedFilename(), /\.flac$/);
    const file = fs.readFileSync(await download.path());
    assert.equal(file.subarray(0, 4).toString(), "fLaC");
    await download.delete();
  }
}
