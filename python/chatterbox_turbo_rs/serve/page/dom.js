"use strict";
// Elements, words and files: what all views share. Every file here is a plain script, so that the one-file comparison can hold the same ones.

const $ = (selector, root = document) => root.querySelector(selector);

/** An element: el("button", {type: "button", onclick}, "Play"). Attributes that are null or false are left out. */
function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false && value !== undefined) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** 3.2 s, or 1:04 from a minute on. */
function clock(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
}

const grouped = (number) => number.toLocaleString("en-US");

/** Saves a file where the browser puts downloads. */
function save(blob, name) {
  const link = el("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/** Says something in a live region. Saying the same again is heard again. */
function say(node, text) {
  node.textContent = "";
  node.textContent = text;
}

/** Does the key belong to what has the focus (a field, a list), rather than to the page? */
function typing(event) {
  const { target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey) return true;
  if (target.matches("textarea, select, [contenteditable]")) return true;
  return target.matches("input") && !["checkbox", "radio", "button", "range"].includes(target.type);
}
