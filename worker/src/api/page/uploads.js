// Posts songs, at most two simultaneously. Uploads that the service puts off are repeated.

import { postTask } from "./client.js";

const MOST_AT_ONCE = 2;

/** An hour and a half with the API's Retry-After of 5 s. */
const MOST_TRIES = 1000;

export class Uploads {
  #songs;
  /** Whether the service accepts an Idempotency-Key, which its object store may not support. */
  #acceptsKeys = true;
  #onSessionEnd;
  #running = 0;
  #waiting = [];

  constructor(songs, onSessionEnd) {
    this.#songs = songs;
    this.#onSessionEnd = onSessionEnd;
  }

  get areRunning() {
    return this.#running + this.#waiting.length > 0;
  }

  /** Cancels all uploads. */
  close() {
    for (const song of [...this.#songs.all]) if (song.upload) this.cancel(song);
  }

  /** Adds a song, with `name` and `file` or `url`. */
  add(input, output) {
    const song = { name: input.name, upload: { state: "waiting", input, output, key: newKey() } };
    this.#songs.add(song);
    this.#enqueue(song);
  }

  retry(song) {
    this.#change(song, { state: "waiting", error: undefined });
    this.#enqueue(song);
  }

  cancel(song) {
    this.#waiting = this.#waiting.filter((other) => other !== song);
    song.upload.abort?.abort();
    this.#songs.remove(song);
  }

  #enqueue(song) {
    this.#waiting.push(song);
    this.#startNext();
  }

  #startNext() {
    while (this.#running < MOST_AT_ONCE && this.#waiting.length > 0) {
      this.#running += 1;
      const abort = new AbortController();
      const song = this.#waiting.shift();
      song.upload.abort = abort;
      this.#send(song, abort.signal).finally(() => {
        this.#running -= 1;
        this.#startNext();
      });
    }
  }

  async #send(song, signal) {
    for (let attempt = 1; !signal.aborted; attempt += 1) {
      this.#change(song, { state: "sending", fraction: 0, error: undefined });
      try {
        const progress = (fraction) => this.#change(song, { fraction });
        const task = await this.#post(song.upload, { progress, signal });
        this.#songs.update(song, { task, upload: undefined });
        return;
      } catch (error) {
        if (error.name === "AbortError") return;
        if (!error.retryAfterSeconds || attempt === MOST_TRIES) {
          this.#change(song, { state: "failed", error: error.message });
          if (error.status === 401) this.#onSessionEnd();
          return;
        }
        this.#change(song, { state: "waiting", error: error.message });
        await pause(error.retryAfterSeconds * 1000, signal);
      }
    }
  }

  /** With the song's key, so that a song whose response was lost has one task. */
  async #post({ input, output, key }, options) {
    if (!this.#acceptsKeys) return postTask(input, output, options);
    try {
      return await postTask(input, output, { ...options, key });
    } catch (error) {
      if (error.status !== 400) throw error;
    }
    // The cause was the key if it is accepted without.
    const task = await postTask(input, output, options);
    this.#acceptsKeys = false;
    return task;
  }

  #change(song, changes) {
    Object.assign(song.upload, changes);
    this.#songs.update(song, {});
  }
}

/** 128 random bits; `crypto.randomUUID` exists only on pages from https or from this machine. */
function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
