"use strict";
// The form that speaks: text with its counter and tags, and a request whose sound plays while it comes.

const CHARACTERS = 14; // of a second of speech, roughly: for the bar alone

class Speak {
  constructor(about, settings, takes) {
    this.about = about;
    this.settings = settings;
    this.takes = takes;
    this.stop = null;
    takes.onreuse = (take) => this._reuse(take);
    const text = $("#text");
    text.maxLength = about.max_input;
    text.addEventListener("input", () => this._count());
    text.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        $("#speak-form").requestSubmit();
      }
    });
    $("#speak-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.speak();
    });
    $("#cancel").addEventListener("click", () => this.stop?.abort());
    this._tags();
    this._count();
  }

  _count() {
    $("#counter").textContent = `${grouped($("#text").value.length)} of ${grouped(this.about.max_input)} characters`;
  }

  /** A toolbar: one stop of the Tab key, arrow keys go along it. */
  _tags() {
    const buttons = this.about.tags.map((tag, i) => el("button", { type: "button", class: "tag", tabindex: i ? -1 : 0, onclick: () => this._insert(tag) }, tag.replace(/^\[|\]$/g, "")));
    const bar = $("#tags");
    bar.hidden = buttons.length === 0;
    bar.replaceChildren(...buttons);
    bar.addEventListener("keydown", (event) => {
      const at = buttons.indexOf(document.activeElement);
      const last = buttons.length - 1;
      const to = { ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at ? at - 1 : last, Home: 0, End: last }[event.key];
      if (at < 0 || to === undefined) return;
      event.preventDefault();
      buttons[to].focus();
    });
    bar.addEventListener("focusin", (event) => buttons.forEach((button) => (button.tabIndex = button === event.target ? 0 : -1)));
  }

  /** Puts a tag at the cursor, with a space where words would touch it. */
  _insert(tag) {
    const text = $("#text");
    const { selectionStart: from, selectionEnd: to, value } = text;
    const before = from > 0 && !/\s/.test(value[from - 1]) ? " " : "";
    const after = to < value.length && /[\s.,!?;:]/.test(value[to]) ? "" : " ";
    if (value.length - (to - from) + tag.length + 2 > this.about.max_input) return;
    text.setRangeText(before + tag + after, from, to, "end");
    text.focus();
    this._count();
  }

  _reuse(take) {
    const { input, voice, seed, ...settings } = take.request;
    $("#text").value = input;
    $("#voice").value = voice;
    $("#seed").value = take.seed ?? "";
    this.settings.set(settings);
    this._count();
    say($("#speak-status"), `Text, voice, seed and settings are those of take ${take.number}.`);
    $("#text").focus();
  }

  async speak() {
    if (this.stop) return;
    const input = $("#text").value;
    const voice = $("#voice").value;
    const seed = $("#seed").value;
    const request = { input, voice, ...(seed ? { seed } : {}), ...this.settings.values };
    const { takes } = this;
    const take = takes.begin(request, voice);
    take.expected = Math.max(1, input.replace(/\[[^\]]*\]/g, "").length / CHARACTERS / (request.speed ?? 1));
    this._busy(true);
    $("#take").scrollIntoView({ block: "nearest" }); // on a phone it stands below
    takes.player.play(); // now, while the browser knows that somebody asked for it
    let state = "whole";
    let report = null;
    try {
      const body = { ...request, response_format: "pcm", stream_format: "sse" };
      const answer = await ask("v1/audio/speech", { method: "POST", body, signal: this.stop.signal });
      take.seed = answer.headers.get("X-Chatterbox-Seed");
      takes._facts();
      for await (const event of events(answer)) {
        if (event.type === "speech.audio.delta") takes.append(take, samplesOf(bytesOf(event.audio)));
        else if (event.type === "speech.audio.done") report = event;
        else if (event.type === "error") throw new ApiError(500, event.error.message);
        this._progress(take);
      }
      if (report === null) throw new ApiError(0, "The answer broke off.");
      const cut = report.finish_reason === "length" ? " It was cut at the most tokens that a segment may have." : "";
      say($("#speak-status"), `${clock(report.seconds)} of speech.${cut}`);
    } catch (error) {
      state = error.name === "AbortError" ? "cancelled" : "failed";
      say($("#speak-status"), state === "cancelled" ? `Cancelled after ${clock(take.seconds())} of speech.` : "");
      if (state === "failed") say($("#speak-wrong"), error.message);
      if (state === "cancelled" || !take.parts.length) takes.player.pause();
    } finally {
      this._busy(false);
      takes.end(take, state, report);
    }
  }

  _progress(take) {
    const seconds = take.seconds();
    $("#speaking").value = Math.min(0.97, seconds / take.expected);
    $("#speak-status").textContent = `${clock(seconds)} of speech so far`;
  }

  _busy(busy) {
    this.stop = busy ? new AbortController() : null;
    $("#speak-go").disabled = busy;
    $("#cancel").disabled = !busy;
    $("#speaking").hidden = !busy;
    $("#speaking").value = 0;
    if (busy) {
      say($("#speak-status"), "Waiting for the first sound");
      say($("#speak-wrong"), "");
    }
  }
}
