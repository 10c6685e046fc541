// The section that adds songs: chosen or dropped files and links, output format and bit depth.

import { linkName } from "./words.js";

const DEPTHS = {
  wav: [[16, "16 bits"], [24, "24 bits"], [32, "32 bits, floating point"]],
  flac: [[16, "16 bits"], [24, "24 bits"]],
  mp3: [],
};

const [files, linkForm, link, format, depth] = ["files", "link-form", "link", "format", "depth"].map((id) =>
  document.getElementById(id),
);

/**
 * Calls `add(inputs, output)` for chosen and dropped files, `{name, file}`, and for links, `{name, url}`; files are
 * dropped only while `accepts()`.
 */
export function addSongs(accepts, add) {
  const addFiles = (added) => add([...added].map((file) => ({ name: file.name, file })), output());
  files.addEventListener("change", () => {
    addFiles(files.files);
    files.value = "";
  });
  linkForm.addEventListener("submit", (event) => {
    event.preventDefault();
    const url = new URL(link.value).href;
    add([{ name: linkName(url), url }], output());
    link.value = "";
  });
  for (const type of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(type, (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      // Otherwise the browser would leave the page for the file.
      event.preventDefault();
      const isOver = type === "dragenter" || type === "dragover";
      document.body.classList.toggle("dropping", accepts() && isOver);
      if (type === "drop" && accepts()) addFiles(event.dataTransfer.files);
    });
  }
  format.addEventListener("change", showDepths);
  showDepths();
}

function output() {
  const stems = ["vocals", "instrumental"];
  return depth.value ? { format: format.value, bit_depth: Number(depth.value), stems } : { format: format.value, stems };
}

function showDepths() {
  const depths = DEPTHS[format.value];
  depth.replaceChildren(...depths.map(([bits, text]) => new Option(text, bits)));
  depth.disabled = depths.length === 0;
}
