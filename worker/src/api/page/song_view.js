// One song of the list, as an item of the page: its texts by `describe`, its buttons and its player.

import { element, setText } from "./dom.js";
import { openPlayer } from "./player.js";
import { describe } from "./words.js";

const LABELS = {
  cancel: "Cancel",
  retry: "Try again",
  listen: "Listen",
  delete: "Delete",
  remove: "Remove from list",
};

export class SongView {
  #song;
  #perform;
  #title = element("h3", { tabindex: -1 });
  #text = element("p", { class: "state" });
  #progress;
  #problem = element("p", { class: "problem" });
  #actions = element("div", { class: "actions" });
  #buttons = new Map();
  #player = element("div", { class: "player", role: "group", hidden: true });
  #closePlayer;

  /** `perform(action)` is called for each click except `listen`. */
  constructor(song, perform) {
    this.#song = song;
    this.#perform = perform;
    this.#progress = element("progress", { max: 100, "aria-label": `Progress of ${song.name}` });
    this.#player.setAttribute("aria-label", `Player of ${song.name}`);
    setText(this.#title, song.name);
    const parts = [this.#title, this.#text, this.#progress, this.#problem, this.#actions, this.#player];
    this.root = element("li", { class: "song" }, ...parts);
    this.update();
  }

  get isListening() {
    return this.#closePlayer !== undefined;
  }

  update() {
    const { text, percent, error, actions } = describe(this.#song, Date.now());
    setText(this.#text, text);
    setText(this.#problem, error ?? "");
    this.#progress.hidden = percent === undefined;
    if (percent === null) this.#progress.removeAttribute("value");
    else if (percent !== undefined) this.#progress.value = percent;
    this.#showActions(actions);
    if (this.isListening && !actions.includes("listen")) this.#toggle();
  }

  /** Opens the player, unless the song cannot be played. */
  listen() {
    if (!this.isListening && this.#buttons.has("listen")) this.#toggle();
  }

  close() {
    this.#closePlayer?.();
    this.root.remove();
  }

  /** The focus of a button that disappears moves to the first one, or to the title. */
  #showActions(actions) {
    if (actions.join() === [...this.#buttons.keys()].join()) return;
    const hadFocus = this.#actions.contains(document.activeElement);
    this.#buttons = new Map(actions.map((action) => [action, this.#buttons.get(action) ?? this.#button(action)]));
    this.#actions.replaceChildren(...this.#buttons.values());
    if (hadFocus) (this.#actions.firstElementChild ?? this.#title).focus();
  }

  #button(action) {
    const onclick = action === "listen" ? () => this.#toggle() : () => this.#perform(action);
    const expanded = action === "listen" ? "false" : undefined;
    const label = `${LABELS[action]}: ${this.#song.name}`;
    return element("button", { type: "button", "aria-label": label, "aria-expanded": expanded, onclick }, LABELS[action]);
  }

  #toggle() {
    if (this.isListening) {
      this.#closePlayer();
      this.#closePlayer = undefined;
    } else {
      this.#closePlayer = openPlayer(this.#player, this.#song);
    }
    this.#player.hidden = !this.isListening;
    this.#buttons.get("listen")?.setAttribute("aria-expanded", String(this.isListening));
  }
}
