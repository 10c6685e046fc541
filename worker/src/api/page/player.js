// The player of one finished song: waveforms, transport, and solo, mute, volume and download of each stem.

import { previewPath, readPeaks, stemPath } from "./client.js";
import { element, setText } from "./dom.js";
import { Transport } from "./transport.js";
import WaveSurfer from "./wavesurfer.esm.js";
import { clockText, spokenTime, stemTitle } from "./words.js";

const WAVE_HEIGHT_PX = 64;
const STEP_S = 5;
const LARGE_STEP_S = 30;

/** The style element of a waveform is allowed by this nonce, which the page's policy names. */
const NONCE = document.querySelector("script[nonce]").nonce;

const darkScheme = matchMedia("(prefers-color-scheme: dark)");

/** The transport that plays; starting another one pauses it. */
let playing;

/** Creates a player in `container`. The returned function removes it. */
export function openPlayer(container, { name, task }) {
  const stems = task.stems.map((stem) => createStem(task.id, stem, name));
  const transport = new Transport(stems.map(({ media }) => media));
  const duration = () => {
    const known = stems[0].media.duration;
    return Number.isFinite(known) ? known : task.input?.duration_seconds ?? 0;
  };
  showTransport(container, transport, duration, name);
  applyAudibility(stems);
  container.append(...stems.map(({ root }) => root));
  const closing = new AbortController();
  const drawn = drawWaves(task.id, stems, transport, closing.signal);
  return () => {
    closing.abort();
    transport.pause();
    drawn.then((waves) => waves.forEach((wave) => wave.destroy()));
    // Without a source, a media element ends its download.
    for (const { media } of stems) {
      media.removeAttribute("src");
      media.load();
    }
    container.replaceChildren();
  };
}

function createStem(id, { name: stem, content_type: type }, song) {
  const title = stemTitle(stem);
  const media = element("audio", { preload: "auto", src: previewPath(id, stem), "data-stem": stem });
  const problem = element("p", { class: "problem", role: "status" });
  media.addEventListener("error", () => {
    if (media.getAttribute("src") === previewPath(id, stem)) {
      // The preview may be missing; the stem itself is larger, and not every browser plays its format.
      const time = media.currentTime;
      media.src = stemPath(id, stem);
      media.currentTime = time;
    } else if (media.hasAttribute("src")) {
      setText(problem, `The ${stem} cannot be played here. Download the file instead.`);
    }
  });
  const wave = element("div", { class: "wave", "aria-hidden": "true" });
  const solo = element("button", { type: "button", "aria-pressed": "false", "aria-label": `Solo ${stem}` }, "Solo");
  const mute = element("button", { type: "button", "aria-pressed": "false", "aria-label": `Mute ${stem}` }, "Mute");
  const volume = element("input", { type: "range", min: 0, max: 100, value: 100, "aria-label": `Volume of ${stem}` });
  volume.addEventListener("input", () => (media.volume = volume.value / 100));
  const format = type.split("/")[1].replace("mpeg", "mp3").toUpperCase();
  const label = `Download ${format}: ${stem} of ${song}`;
  const link = { class: "button", href: stemPath(id, stem), download: true, "aria-label": label };
  const download = element("a", link, `Download ${format}`);
  const heading = element("h4", {}, title);
  const volumeLabel = element("label", { class: "volume" }, "Volume", volume);
  const controls = element("div", { class: "controls" }, heading, solo, mute, volumeLabel, download);
  const root = element("div", { class: "stem", role: "group", "aria-label": title }, controls, wave, problem, media);
  return { stem, root, media, wave, solo, mute };
}

/** A stem is heard unless it is muted, or another one is soloed and this one is not. */
function applyAudibility(stems) {
  const isOn = (button) => button.getAttribute("aria-pressed") === "true";
  const apply = () => {
    const hasSolo = stems.some(({ solo }) => isOn(solo));
    for (const { media, solo, mute } of stems) media.muted = isOn(mute) || (hasSolo && !isOn(solo));
  };
  for (const button of stems.flatMap(({ solo, mute }) => [solo, mute])) {
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(!isOn(button)));
      apply();
    });
  }
}

/** The play button, the position and the time. */
function showTransport(container, transport, duration, name) {
  const play = element("button", { type: "button", class: "primary", "aria-label": `Play ${name}` }, "Play");
  const range = { type: "range", class: "position", min: 0, step: "any", "aria-label": `Position in ${name}` };
  const position = element("input", range);
  const time = element("span", { class: "time" });
  container.append(element("div", { class: "transport" }, play, position, time));
  const show = () => {
    const word = transport.isPlaying ? "Pause" : "Play";
    setText(play, word);
    play.setAttribute("aria-label", `${word} ${name}`);
    position.max = duration();
    position.value = transport.time;
    position.setAttribute("aria-valuetext", `${spokenTime(transport.time)} of ${spokenTime(duration())}`);
    setText(time, `${clockText(transport.time)} / ${clockText(duration())}`);
  };
  const seek = (seconds) => transport.seek(Math.min(Math.max(0, seconds), duration()));
  play.addEventListener("click", () => (transport.isPlaying ? transport.pause() : transport.play()));
  position.addEventListener("input", () => seek(position.valueAsNumber));
  position.addEventListener("keydown", (event) => {
    const target = keyTarget(event.key, transport.time, duration());
    if (target === undefined) return;
    event.preventDefault();
    seek(target);
  });
  transport.addEventListener("change", show);
  transport.addEventListener("time", show);
  transport.addEventListener("change", () => {
    if (!transport.isPlaying || playing === transport) return;
    playing?.pause();
    playing = transport;
  });
  show();
}

/** The time that a key of the position slider seeks to, in seconds. */
function keyTarget(key, time, duration) {
  switch (key) {
    case "ArrowRight":
    case "ArrowUp":
      return time + STEP_S;
    case "ArrowLeft":
    case "ArrowDown":
      return time - STEP_S;
    case "PageUp":
      return time + LARGE_STEP_S;
    case "PageDown":
      return time - LARGE_STEP_S;
    case "Home":
      return 0;
    case "End":
      return duration;
    default:
      return undefined;
  }
}

/** Draws the stored peaks; without them the player has no waveforms. */
async function drawWaves(id, stems, transport, signal) {
  const stored = await readPeaks(id).catch(() => undefined);
  if (!stored || signal.aborted) return [];
  const drawn = stems.filter(({ stem }) => stored.peaks[stem]?.length > 0);
  const waves = drawn.map(({ stem, media, wave }) => {
    const waveform = WaveSurfer.create({
      container: wave,
      media,
      peaks: [stored.peaks[stem]],
      duration: stored.duration_seconds,
      height: WAVE_HEIGHT_PX,
      hideScrollbar: true,
      dragToSeek: true,
      cspNonce: NONCE,
      ...colors(),
    });
    waveform.on("interaction", (time) => transport.seek(time));
    return waveform;
  });
  darkScheme.addEventListener("change", () => waves.forEach((wave) => wave.setOptions(colors())), { signal });
  return waves;
}

function colors() {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  return { waveColor: color("--wave"), progressColor: color("--played"), cursorColor: color("--text") };
}
