// The texts of the page: states, times and errors. Pure functions of the API's responses.

const STATES = {
  queued: "Queued",
  running: "Running",
  succeeded: "Finished",
  failed: "Failed",
  cancelled: "Canceled",
};

const STAGES = {
  fetching: "Fetching the song",
  separating: "Separating",
  uploading: "Storing the stems",
};

const TASK_ERRORS = {
  input_unreadable: "This file cannot be read as audio. It may be damaged.",
  input_too_long: "This song is longer than the service accepts.",
  input_fetch_failed: "The song could not be fetched.",
  input_missing: "The song was deleted before it was separated.",
  worker_crashed: "This song repeatedly ended the program that separates it.",
  timed_out: "Separating this song took too long.",
  not_processed: "No worker has processed this song.",
  internal: "The service failed. Try again later.",
};

const PROBLEMS = {
  unauthenticated: "You are not signed in.",
  input_too_large: "This file is larger than the service accepts.",
  input_not_audio: "This file is not audio.",
  unsupported_content_type: "This file is not audio.",
  not_found: "This song no longer exists.",
  idempotency_in_progress: "The service is still receiving this song.",
  expired: "The stems were deleted because their retention time has passed.",
};

/** A problem of a request as a sentence. `status` is 0 if there was no response. */
export function problemText(status, problem) {
  if (status === 0) return "The service cannot be reached. Check the connection.";
  const known = PROBLEMS[problem.code];
  if (known) return known;
  const details = [problem.detail, ...(problem.errors ?? []).map((error) => error.detail)].filter(Boolean);
  const text = details.join("; ") || problem.title || `The service responded with status ${status}.`;
  return text[0].toUpperCase() + text.slice(1);
}

/**
 * Describes a song: `text`; `percent` of the current step, `null` while unknown, `undefined` without a step; `error`;
 * and the `actions` that are possible.
 */
export function describe({ upload, state, task, isGone }, now) {
  if (upload) return describeUpload(upload);
  if (isGone) return { error: PROBLEMS.not_found, text: "", actions: ["remove"] };
  // Its actions depend on the response to come.
  if (!task) return { text: STATES[state] ?? "", actions: [] };
  switch (state) {
    case "queued":
      return { text: queuedText(task), percent: null, actions: ["cancel"] };
    case "running":
      return describeRunning(task);
    case "succeeded":
      if (!task.stems || Date.parse(task.expires_at) <= now) return { text: PROBLEMS.expired, actions: ["remove"] };
      return { text: finishedText(task), actions: ["listen", "delete"] };
    case "failed":
      return { text: STATES.failed, error: taskErrorText(task.error), actions: ["delete"] };
    default:
      return { text: STATES[state] ?? state, actions: ["delete"] };
  }
}

export function isFinished(state) {
  return !["queued", "running"].includes(state);
}

/** The name of a linked song: the last part of the path, else the host. */
export function linkName(link) {
  const { pathname, host } = new URL(link);
  const last = pathname.split("/").pop();
  try {
    return decodeURIComponent(last) || host;
  } catch {
    return last;
  }
}

export function stemTitle(name) {
  return name[0].toUpperCase() + name.slice(1);
}

/** `1:05`, `1:00:05`. */
export function clockText(seconds) {
  const whole = Math.floor(seconds);
  const two = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** A time for screen readers: `1 minute 5 seconds`. */
export function spokenTime(seconds) {
  const whole = Math.floor(seconds);
  const count = (number, unit) => `${number} ${unit}${number === 1 ? "" : "s"}`;
  const minutes = Math.floor(whole / 60);
  return minutes > 0 ? `${count(minutes, "minute")} ${count(whole % 60, "second")}` : count(whole, "second");
}

function describeUpload({ state, input, fraction, error }) {
  switch (state) {
    case "waiting":
      return {
        text: error ? `${error} Trying again soon.` : "Waiting to be added",
        percent: null,
        actions: ["cancel"],
      };
    case "sending": {
      if (input.url) return { text: "Adding the link", percent: null, actions: [] };
      // Once it is sent, only its task can be canceled.
      if (fraction === 1) return { text: "Uploaded, being checked", percent: null, actions: [] };
      const percent = Math.floor(fraction * 100);
      return { text: `Uploading, ${percent} %`, percent, actions: ["cancel"] };
    }
    default:
      return { text: "Not added", error, actions: ["retry", "remove"] };
  }
}

function describeRunning({ stage, progress }) {
  const parts = [STAGES[stage] ?? STATES.running];
  const percent = progress?.percent;
  if (percent !== undefined) parts.push(`${percent} %`);
  if (progress?.eta_seconds !== undefined) parts.push(remainingText(progress.eta_seconds));
  return { text: parts.join(", "), percent: percent ?? null, actions: ["cancel"] };
}

function queuedText({ queue_position: before, stage }) {
  if (stage) return STAGES[stage] ?? STATES.queued;
  if (before === undefined) return STATES.queued;
  if (before === 0) return "Queued, next";
  return `Queued, ${before} ${before === 1 ? "song" : "songs"} before it`;
}

function remainingText(seconds) {
  if (seconds < 60) return `about ${Math.max(1, Math.round(seconds))} s left`;
  return `about ${Math.round(seconds / 60)} min left`;
}

function finishedText({ expires_at }) {
  if (!expires_at) return STATES.succeeded;
  const date = new Date(expires_at).toLocaleDateString("en", { day: "numeric", month: "long", year: "numeric" });
  return `Finished, available until ${date}`;
}

function taskErrorText(error) {
  return TASK_ERRORS[error?.code] ?? error?.message ?? TASK_ERRORS.internal;
}
