
"use strict";
const form = document.getElementById("post");
const fields = form.querySelector("fieldset");
const tasks = document.getElementById("tasks");
const words = {
  queued: "queued",
  processing: "being separated",
  unknown: "unknown: failed, to be retried, or skipped because it was posted before the first worker started",
  separated: "separated, being uploaded",
  done: "done",
  failed: "failed",
};

function element(name, text, parent, type) {
  const made = document.createElement(name);
  made.textContent = text;
  if (type) made.className = type;
  parent.append(made);
  return made;
}

function post(file, link, hook, bar) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.responseType = "json";
    request.onload = () => {
      const answer = request.response || {};
      if (request.status === 200) return resolve(answer.task_uuid);
      const why = answer.details ? ": " + answer.details : "";
      reject(new Error((answer.error || "status " + request.status) + why));
    };
    request.onerror = () => reject(new Error("the connection failed"));
    if (file) {
      const body = new FormData();
      if (hook) body.append("hook_url", hook);
      body.append("audio", file);
      request.upload.onprogress = (event) => {
        if (event.lengthComputable) bar.value = event.loaded / event.total;
      };
      request.open("POST", "/tasks");
      request.send(body);
    } else {
      request.open("POST", "/generate");
      request.setRequestHeader("Content-Type", "application/json");
      request.send(JSON.stringify({ audio: link, hook_url: hook }));
    }
  });
}

async function follow(task, line, box) {
  for (let pause = 1000; ; pause = Math.min(pause * 1.3, 10000)) {
    const answer = await fetch("/tasks/" + encodeURIComponent(task)).catch(() => null);
    const status = answer && answer.ok ? await answer.json() : null;
    if (status) {
      line.textContent = words[status.status] || status.status;
      if (status.position) line.textContent += ", " + status.position + " before it";
      if (status.status === "failed") {
        line.className = "failed";
        line.textContent += ": " + (status.error_message || "");
        return;
      }
      if (status.status === "done") {
        for (const stem of ["vocals", "instrumental"]) {
          if (!/^https?:/.test(status[stem] || "")) continue;
          const link = element("a", stem, element("p", "", box));
          link.href = status[stem];
          link.rel = "noreferrer";
        }
        return;
      }
    } else if (answer && answer.status === 404) {
      line.textContent = "unknown";
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const file = document.getElementById("audio").files[0];
  const link = document.getElementById("link").value.trim();
  const hook = document.getElementById("hook").value.trim();
  const box = document.createElement("div");
  box.className = "task";
  tasks.prepend(box);
  element("p", file ? file.name : link || "no song", box, "name");
  const line = element("p", "sending", box);
  const bar = element("progress", "", box);
  fields.disabled = true;
  try {
    const task = await post(file, link, hook, bar);
    bar.remove();
    element("p", task, box);
    form.reset();
    fields.disabled = false;
    await follow(task, line, box);
  } catch (error) {
    bar.remove();
    line.className = "failed";
    line.textContent = error.message;
  }
  fields.disabled = false;
});
