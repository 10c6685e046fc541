// Plays the stems of one song in sync. Each stem has a media element of its own, with a clock of its own: the first
// element leads, the others follow it.

/** How often the elements are compared while they play. */
const CHECK_MS = 100;

/** Corrections of the speed begin above the first and end below the second difference; 30 ms are audible as an echo. */
const CORRECT_ABOVE_S = 0.01;
const CORRECT_BELOW_S = 0.003;

/** The speed corrects a difference within half a second; in a hidden tab, whose timers run once a second, within two. */
const SPEED_PER_S = 2;
const HIDDEN_SPEED_PER_S = 0.5;
const MOST_SPEED = 0.05;

/** A larger difference restarts all from one position, which is a short gap; not again right after a start. */
const RESTART_ABOVE_S = 0.05;
const RESTART_AFTER_MS = 2_000;

/** Dispatches `change` when it starts, stops or seeks, and `time` while it plays. */
export class Transport extends EventTarget {
  #leader;
  #followers;
  /** Whether the user wants it to play. */
  #isWanted = false;
  /** The timer of corrections, while the elements play. */
  #timer;
  #startedAt = 0;
  #isAligned = false;

  constructor([leader, ...followers]) {
    super();
    this.#leader = leader;
    this.#followers = followers;
    for (const media of this.#all) {
      for (const event of ["canplay", "seeked", "waiting", "error"]) media.addEventListener(event, () => this.#update());
    }
    // The correction of the pitch delays the sound by tens of milliseconds whenever the speed changes.
    for (const follower of followers) follower.preservesPitch = false;
    leader.addEventListener("ended", () => this.pause());
    leader.addEventListener("timeupdate", () => this.dispatchEvent(new Event("time")));
  }

  get isPlaying() {
    return this.#isWanted;
  }

  /** Seconds. */
  get time() {
    return this.#leader.currentTime;
  }

  play() {
    this.#isWanted = true;
    if (this.#leader.ended) this.seek(0);
    else this.#update();
    this.dispatchEvent(new Event("change"));
  }

  pause() {
    this.#isWanted = false;
    this.#update();
    this.dispatchEvent(new Event("change"));
  }

  seek(seconds) {
    for (const media of this.#all) {
      media.playbackRate = this.#leader.playbackRate;
      media.currentTime = seconds;
    }
    this.dispatchEvent(new Event("change"));
  }

  get #all() {
    return [this.#leader, ...this.#followers];
  }

  /** All play, or none: while one of them loads or seeks, the others are paused. */
  #update() {
    const areReady = this.#all.every((media) => media.readyState >= media.HAVE_FUTURE_DATA && !media.seeking);
    if (!this.#isWanted || !areReady) this.#stop();
    else if (this.#timer === undefined) this.#start();
  }

  #stop() {
    clearInterval(this.#timer);
    this.#timer = undefined;
    for (const media of this.#all) media.pause();
  }

  /** Starts from one position: a follower that is elsewhere seeks first, and `seeked` calls this again. */
  #start() {
    const strays = this.#followers.filter((follower) => Math.abs(this.#difference(follower)) > CORRECT_BELOW_S);
    if (strays.length > 0 && !this.#isAligned) {
      // Once: some formats have no exact positions.
      this.#isAligned = true;
      for (const stray of strays) stray.currentTime = this.#leader.currentTime;
      return;
    }
    this.#isAligned = false;
    // A play that a pause follows is rejected; errors of the media have events of their own.
    for (const media of this.#all) media.play().catch(() => {});
    this.#startedAt = performance.now();
    this.#timer = setInterval(() => this.#correct(), CHECK_MS);
  }

  #difference(follower) {
    return follower.currentTime - this.#leader.currentTime;
  }

  #correct() {
    const mayRestart = performance.now() - this.#startedAt > RESTART_AFTER_MS;
    const speedPerS = document.hidden ? HIDDEN_SPEED_PER_S : SPEED_PER_S;
    for (const follower of this.#followers) {
      if (follower.ended) continue;
      const difference = this.#difference(follower);
      const size = Math.abs(difference);
      if (size > RESTART_ABOVE_S && mayRestart) {
        this.#stop();
        this.#update();
        return;
      }
      const { playbackRate } = this.#leader;
      const isCorrecting = follower.playbackRate !== playbackRate;
      const needsCorrection = size > (isCorrecting ? CORRECT_BELOW_S : CORRECT_ABOVE_S);
      const speed = needsCorrection ? Math.min(MOST_SPEED, size * speedPerS) * Math.sign(difference) : 0;
      follower.playbackRate = playbackRate * (1 - speed);
    }
  }
}
