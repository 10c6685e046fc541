// The list of a client's songs. Names, IDs and last states of tasks are kept in localStorage, one list for each client;
// the API has no list of tasks.

import { isFinished } from "./words.js";

/** About 100 bytes each; `follow` reads so many tasks within two minutes after the page is opened. */
const MOST_KEPT = 500;

/**
 * A song: `name`; `upload` until it has a task; then the task's `id` and last `state`; `task` (the API's last response)
 * and its `etag` once it was read; `isGone` once the API no longer knows it. Dispatches `change` with the song in
 * `detail` when one of them changes, and `remove`.
 */
export class Songs extends EventTarget {
  #storageKey;
  #songs = [];

  constructor(client) {
    super();
    this.#storageKey = `songs:${client}`;
    this.#songs = this.#stored();
    // Another tab of the same client.
    this.onStorage = (event) => event.key === this.#storageKey && this.#merge();
    addEventListener("storage", this.onStorage);
  }

  close() {
    removeEventListener("storage", this.onStorage);
  }

  /** Newest first. */
  get all() {
    return this.#songs;
  }

  /** Songs whose task was not read yet or may still change. */
  get toRead() {
    return this.#songs.filter(({ id, state, task, isGone }) => id && !isGone && !(task && isFinished(state)));
  }

  add(song) {
    this.#songs.unshift(song);
    if (song.id) this.#store();
    this.#dispatch("change", song);
  }

  /** A song that was removed stays removed. */
  update(song, changes) {
    Object.assign(song, changes);
    if (changes.task) Object.assign(song, { id: changes.task.id, state: changes.task.state });
    if (!this.#songs.includes(song)) return;
    if (changes.task) this.#store();
    this.#dispatch("change", song);
  }

  remove(...removed) {
    this.#songs = this.#songs.filter((song) => !removed.includes(song));
    this.#store(removed);
    for (const song of removed) this.#dispatch("remove", song);
  }

  /** Removes all songs that have a task; the tasks stay. */
  clear() {
    this.remove(...this.#songs.filter(({ id }) => id));
  }

  #dispatch(type, song) {
    this.dispatchEvent(new CustomEvent(type, { detail: song }));
  }

  #merge() {
    const stored = this.#stored();
    const isIn = (list, id) => list.some((song) => song.id === id);
    const removed = this.#songs.filter(({ id }) => id && !isIn(stored, id));
    removed.forEach((song) => this.remove(song));
    const added = stored.filter(({ id }) => !isIn(this.#songs, id));
    added.reverse().forEach((song) => this.add(song));
  }

  /** Writes the list, with songs that another tab added since, and without `removed`. */
  #store(removed = []) {
    const own = this.#songs.filter(({ id }) => id);
    const known = new Set([...own, ...removed].map(({ id }) => id));
    const others = this.#stored().filter(({ id }) => !known.has(id));
    const kept = [...own.map(({ name, id, state }) => ({ name, id, state })), ...others].slice(0, MOST_KEPT);
    try {
      if (kept.length > 0) localStorage.setItem(this.#storageKey, JSON.stringify(kept));
      else localStorage.removeItem(this.#storageKey);
    } catch {
      // Storage is full or blocked: the list then lasts as long as the page.
    }
  }

  #stored() {
    try {
      const songs = JSON.parse(localStorage.getItem(this.#storageKey) ?? "[]");
      return songs.filter(({ name, id }) => typeof name === "string" && typeof id === "string");
    } catch {
      return [];
    }
  }
}
