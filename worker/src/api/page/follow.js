// Reads the tasks of the list until they have ended.

import { readTask } from "./client.js";

const INTERVAL_MS = 2_000;
const HIDDEN_INTERVAL_MS = 15_000;

/** With 10 requests in a round a long list takes several rounds, and the service at most 5 requests a second. */
const MOST_IN_A_ROUND = 10;

/**
 * Reads the tasks until `signal` aborts. Calls `onError` with the error of each round that failed, and without one
 * after each other round.
 */
export async function follow(songs, onError, signal) {
  while (!signal.aborted) {
    let retryAfterSeconds = 0;
    try {
      await readRound(songs, signal);
      if (!signal.aborted) onError();
    } catch (error) {
      if (signal.aborted) return;
      retryAfterSeconds = error.retryAfterSeconds ?? 0;
      onError(error);
    }
    const interval = document.hidden ? HIDDEN_INTERVAL_MS : INTERVAL_MS;
    await pause(Math.max(interval, retryAfterSeconds * 1000), signal);
  }
}

/** Reads the tasks that were not read for the longest time; first those that were not read yet. */
async function readRound(songs, signal) {
  const oldestFirst = songs.toRead.sort((a, b) => (a.readAt ?? 0) - (b.readAt ?? 0));
  for (const song of oldestFirst.slice(0, MOST_IN_A_ROUND)) {
    if (signal.aborted) return;
    song.readAt = Date.now();
    try {
      const { task, etag } = await readTask(song.id, song.etag);
      if (task) songs.update(song, { task, etag });
    } catch (error) {
      if (error.status !== 404) throw error;
      songs.update(song, { isGone: true });
    }
  }
}

/** Ends early when the page becomes visible. */
function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", endIfVisible);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const endIfVisible = () => document.hidden || end();
    const timer = setTimeout(end, milliseconds);
    document.addEventListener("visibilitychange", endIfVisible);
    signal.addEventListener("abort", end);
  });
}
