// The entry of the page: signs in and out, and opens the client's workspace.

import { addSongs } from "./add_songs.js";
import { session, signIn, signOut } from "./client.js";
import { setText } from "./dom.js";
import { Workspace } from "./workspace.js";

/** The client of an API without keys, which cannot sign out. */
const WITHOUT_KEYS = "local";

const page = Object.fromEntries([...document.querySelectorAll("[id]")].map((found) => [found.id, found]));

/** Of the client that is signed in, or was until its session ended. */
let workspace;

async function start() {
  try {
    showWorkspace(await session());
  } catch (error) {
    if (error.status === 401) showSignIn("");
    else showProblem(error.message);
  }
}

function showProblem(text) {
  setText(page.problem, text);
}

function showSignIn(problem) {
  showProblem(problem);
  page.account.hidden = true;
  page.workspace.hidden = true;
  page["sign-in"].hidden = false;
  page.key.focus();
}

function showWorkspace(client) {
  showProblem("");
  page["sign-in"].hidden = true;
  page.workspace.hidden = false;
  page.account.hidden = client === WITHOUT_KEYS;
  setText(page.client, client);
  if (workspace?.client === client) {
    workspace.followTasks();
    return;
  }
  workspace?.close();
  workspace = new Workspace(client, {
    onProblem: showProblem,
    onSessionEnd: () => showSignIn("Your session has ended. Sign in again."),
  });
}

page["sign-in"].addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await signIn(page.key.value);
    page.key.value = "";
    showWorkspace(await session());
    page.files.focus();
  } catch (error) {
    showSignIn(error.status === 401 ? "This API key is not valid." : error.message);
  }
});

page["sign-out"].addEventListener("click", async () => {
  if (workspace.isUploading && !confirm("Sign out and cancel the uploads?")) return;
  try {
    await signOut();
  } catch (error) {
    showProblem(error.message);
    return;
  }
  workspace.close();
  workspace = undefined;
  showSignIn("");
});

page.clear.addEventListener("click", () => {
  const text = "Clear the list? The service keeps the songs, but this page can no longer show them.";
  if (confirm(text)) workspace.clear();
});

addEventListener("beforeunload", (event) => {
  if (workspace?.isUploading) event.preventDefault();
});

addSongs(
  () => !page.workspace.hidden,
  (inputs, output) => workspace.add(inputs, output),
);
start();
