// Creates elements. Knows nothing of songs.

/** An element with attributes (`on…` functions are listeners; `false` and `undefined` are left out) and children. */
export function element(tag, attributes = {}, ...children) {
  const created = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") created.addEventListener(name.slice(2), value);
    else if (value === true) created.setAttribute(name, "");
    else if (value !== false && value !== undefined) created.setAttribute(name, value);
  }
  created.append(...children);
  return created;
}

/** Sets a text only if it differs, so that screen readers and selections are not disturbed. */
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}
