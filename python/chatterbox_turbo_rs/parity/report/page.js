"use strict";
const all = () => document.querySelectorAll("main details");
const buttons = document.querySelector(".buttons");
buttons.hidden = false;
buttons.addEventListener("click", (event) => {
  const open = event.target.dataset.open;
  if (open) for (const details of document.querySelectorAll("#checklist details")) details.open = open === "1";
});
// A link to a box opens what it stands in.
function show() {
  const target = document.getElementById(location.hash.slice(1));
  for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
  if (target) target.scrollIntoView();
}
addEventListener("hashchange", show);
show();
addEventListener("beforeprint", () => { for (const details of all()) details.open = true; });
