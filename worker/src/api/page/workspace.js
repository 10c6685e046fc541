// The songs of the signed-in client: joins the list, the uploads, the following of tasks and the views.

import { cancelTask, deleteTask } from "./client.js";
import { setText } from "./dom.js";
import { follow } from "./follow.js";
import { SongView } from "./song_view.js";
import { Songs } from "./songs.js";
import { Uploads } from "./uploads.js";
import { describe } from "./words.js";

const [heading, list, empty, clear, connection, announcements] = [
  "songs-title",
  "songs",
  "empty",
  "clear",
  "connection",
  "announcements",
].map((id) => document.getElementById(id));

export class Workspace {
  #views = new Map();
  #songs;
  #uploads;
  #following;
  #callbacks;

  /** Calls `onProblem(text)` after each action, and `onSessionEnd()` when the API no longer accepts the session. */
  constructor(client, callbacks) {
    this.client = client;
    this.#callbacks = callbacks;
    this.#songs = new Songs(client);
    this.#uploads = new Uploads(this.#songs, () => this.#endSession());
    for (const song of [...this.#songs.all].reverse()) this.#show(song);
    this.#songs.addEventListener("change", ({ detail }) => this.#show(detail));
    this.#songs.addEventListener("remove", ({ detail }) => this.#hide(detail));
    this.#showWhetherEmpty();
    this.followTasks();
  }

  get isUploading() {
    return this.#uploads.areRunning;
  }

  add(inputs, output) {
    for (const input of inputs) this.#uploads.add(input, output);
  }

  /** Clears the list; songs that are being uploaded stay. */
  clear() {
    this.#songs.clear();
    heading.focus();
  }

  close() {
    this.#following.abort();
    this.#uploads.close();
    this.#songs.close();
    for (const view of this.#views.values()) view.close();
  }

  /** Follows the tasks again, after a session that ended. */
  followTasks() {
    this.#following?.abort();
    this.#following = new AbortController();
    const onRound = (error) => {
      const hasEnded = error?.status === 401;
      setText(connection, error && !hasEnded ? `${error.message} Trying again.` : "");
      if (hasEnded) this.#endSession();
    };
    follow(this.#songs, onRound, this.#following.signal);
  }

  #endSession() {
    this.#following.abort();
    this.#callbacks.onSessionEnd();
  }

  #show(song) {
    let view = this.#views.get(song);
    if (view) {
      view.update();
    } else {
      view = new SongView(song, (action) => this.#perform(action, song));
      this.#views.set(song, view);
      list.prepend(view.root);
      this.#showWhetherEmpty();
    }
    this.#announce(song, view);
  }

  /** The focus in a song that disappears moves to the next one, or to the heading. */
  #hide(song) {
    const view = this.#views.get(song);
    const hadFocus = view.root.contains(document.activeElement);
    const next = view.root.nextElementSibling;
    view.close();
    this.#views.delete(song);
    this.#showWhetherEmpty();
    if (hadFocus) (next?.querySelector("button") ?? heading).focus();
  }

  #showWhetherEmpty() {
    empty.hidden = this.#views.size > 0;
    clear.hidden = !empty.hidden;
  }

  /** Announces a change of the state, and opens the player of a song that finishes while none is open. */
  #announce(song, view) {
    const state = [song.upload?.state, song.state, song.task?.stage, song.isGone].join();
    const previous = song.announcedState;
    song.announcedState = state;
    if (previous === undefined || previous === state) return;
    const { text, error } = describe(song, Date.now());
    setText(announcements, `${song.name}: ${error ?? text}`);
    const isListening = [...this.#views.values()].some((other) => other.isListening);
    if (song.state === "succeeded" && !isListening) view.listen();
  }

  async #perform(action, song) {
    try {
      await this.#actions[action](song);
      this.#callbacks.onProblem("");
    } catch (error) {
      if (error.status === 401) this.#endSession();
      else this.#callbacks.onProblem(`${song.name}: ${error.message}`);
    }
  }

  #actions = {
    cancel: async (song) => {
      if (song.upload) this.#uploads.cancel(song);
      else this.#songs.update(song, { task: await cancelTask(song.id), etag: undefined });
    },
    retry: async (song) => this.#uploads.retry(song),
    remove: async (song) => this.#songs.remove(song),
    delete: async (song) => {
      if (!confirm(`Delete ${song.name} and its stems?`)) return;
      // A task that no longer exists needs no deletion.
      await deleteTask(song.id).catch((error) => error.status === 404 || Promise.reject(error));
      this.#songs.remove(song);
    },
  };
}
