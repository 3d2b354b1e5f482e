"use strict";
// Puts the page together: what the server is, the views, the key.

const VIEWS = ["speak", "voices", "compare"];
const TITLES = { speak: "Speak", voices: "Voices", compare: "Compare" };

/** Shows the view that the address names; another anchor, such as the skip link's, leaves the view as it is. */
function route(players) {
  const named = location.hash.slice(1);
  const name = VIEWS.includes(named) ? named : VIEWS.find((view) => !$(`#view-${view}`).hidden);
  for (const view of VIEWS) {
    $(`#view-${view}`).hidden = view !== name;
    const link = $(`nav a[href="#${view}"]`);
    if (view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${TITLES[name]} – Chatterbox Turbo`;
  for (const [view, player] of Object.entries(players)) if (view !== name) player.pause();
}

async function start() {
  const about = await (await ask("page/about")).json();
  const schema = await (await ask("openapi.json")).json();
  const fields = schema.paths["/v1/audio/speech"].post.requestBody.content["application/json"].schema.properties;
  $("#about").textContent = `Model ${about.model}, ${about.precision} on ${about.device}, version ${about.version}`;
  $("#demo").hidden = !about.demo;
  const settings = new Settings(fields, about.needs_watermark);
  const takes = new Takes(about.sample_rate);
  const speak = new Speak(about, settings, takes);
  const voices = new Voices(about);
  const compare = about.compares ? new CompareForm(settings) : null;
  if (!compare) {
    $('nav a[href="#compare"]').hidden = true;
    VIEWS.splice(VIEWS.indexOf("compare"), 1);
  }
  const players = { speak: takes.player, ...(compare ? { compare: compare.view.player } : {}) };
  addEventListener("hashchange", () => route(players));
  route(players);

  const load = () => Promise.all([voices.refresh(), compare?.refresh()]);
  document.addEventListener("key-wanted", () => ($("#key-form").hidden = false));
  $("#key-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    key.set($("#key").value);
    try {
      await load();
      $("#key-form").hidden = true;
      say($("#speak-wrong"), "");
      $("#text").focus();
    } catch (error) {
      say($("#speak-wrong"), error.status === 401 ? "That is not the key." : error.message);
    }
  });
  await load().catch((error) => say($("#speak-wrong"), error.status === 401 ? "" : error.message));
  document.documentElement.dataset.ready = "1";
}

start().catch((error) => say($("#speak-wrong"), error.message));
