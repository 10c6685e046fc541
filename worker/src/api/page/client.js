// Requests to the API of this origin. Keeps no state; the session is an HttpOnly cookie.

import { problemText } from "./words.js";

/** A request without the expected response. `status` is 0 if there was none. */
export class ApiError extends Error {
  constructor(status, problem = {}, retryAfterSeconds = 0) {
    super(problemText(status, problem));
    this.status = status;
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

/** The name of the signed-in client. */
export async function session() {
  return (await request("GET", "/v1/session")).data.client;
}

export async function signIn(key) {
  await request("POST", "/v1/session", { json: { key } });
}

export async function signOut() {
  await request("DELETE", "/v1/session");
}

/** The task and its ETag, or no task if it still has the given ETag. */
export async function readTask(id, etag) {
  const { data, headers } = await request("GET", taskPath(id), { etag });
  return { task: data, etag: headers.get("etag") ?? etag };
}

export async function cancelTask(id) {
  return (await request("POST", `${taskPath(id)}/cancel`)).data;
}

export async function deleteTask(id) {
  await request("DELETE", taskPath(id));
}

/** `{duration_seconds, peaks: {stem: [numbers from 0 to 1]}}` of a finished task. */
export async function readPeaks(id) {
  return (await request("GET", `${taskPath(id)}/peaks`)).data;
}

export function stemPath(id, stem) {
  return `${taskPath(id)}/stems/${encodeURIComponent(stem)}`;
}

export function previewPath(id, stem) {
  return `${taskPath(id)}/previews/${encodeURIComponent(stem)}`;
}

/**
 * Posts a song, `{file}` or `{url}`, and returns its task; with the same Idempotency-Key `key` again, the same task.
 * `progress` gets the sent fraction of the request, from 0 to 1.
 * An XMLHttpRequest, because `fetch` does not report the progress of a request.
 */
export function postTask({ file, url }, output, { key, progress, signal }) {
  return new Promise((resolve, reject) => {
    const upload = new XMLHttpRequest();
    signal.addEventListener("abort", () => upload.abort());
    upload.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
    upload.onload = () => {
      const body = parseJson(upload.responseText);
      if (upload.status === 201) resolve(body);
      else reject(new ApiError(upload.status, body, Number(upload.getResponseHeader("retry-after")) || 0));
    };
    upload.onerror = () => reject(new ApiError(0));
    upload.onabort = () => reject(new DOMException("The upload was canceled.", "AbortError"));
    upload.open("POST", "/v1/tasks");
    if (key) upload.setRequestHeader("idempotency-key", key);
    if (url) upload.setRequestHeader("content-type", "application/json");
    upload.send(url ? JSON.stringify({ input: { url }, output }) : taskForm(file, output));
  });
}

function taskForm(file, output) {
  const form = new FormData();
  form.append("task", JSON.stringify({ output }));
  form.append("file", file, file.name);
  return form;
}

function taskPath(id) {
  return `/v1/tasks/${encodeURIComponent(id)}`;
}

async function request(method, path, { json, etag } = {}) {
  const headers = {};
  if (json) headers["content-type"] = "application/json";
  if (etag) headers["if-none-match"] = etag;
  let response;
  let text;
  try {
    response = await fetch(path, { method, headers, body: json && JSON.stringify(json) });
    text = await response.text();
  } catch {
    throw new ApiError(0);
  }
  if (!response.ok && response.status !== 304) {
    throw new ApiError(response.status, parseJson(text), Number(response.headers.get("retry-after")) || 0);
  }
  return { data: text ? JSON.parse(text) : undefined, headers: response.headers };
}

/** The object in a response, or an empty one: a proxy in between may respond with HTML. */
function parseJson(text) {
  try {
    return Object(JSON.parse(text));
  } catch {
    return {};
  }
}
