"use strict";
// Takes: what was spoken, with what made it. One of them stands in the player; it may still grow.

const MOST_TAKES = 50;

class Takes {
  constructor(rate) {
    this.rate = rate;
    this.list = [];
    this.number = 0;
    this.shown = null;
    this.onreuse = () => {};
    this.player = new Player(rate);
    this.player.onstate = () => this._state();
    this.player.onframe = () => this._frame();
    this.redraw = drawn($("#take-wave"), (...to) => this._wave(...to));
    $("#take-play").addEventListener("click", () => (this.player.playing ? this.player.pause() : this.player.play()));
    $("#take-position").addEventListener("input", (event) => this.player.seek(event.target.value * this._whole()));
    $("#take-download").addEventListener("click", () => this._download(this.shown, $("#take-format").value));
  }

  /** A new take, of which sound is about to come: `take.append(samples)`, then `take.end(state, report)`. */
  begin(request, voice) {
    const take = { number: ++this.number, request, voice, parts: [], state: "making", seed: request.seed ?? null, report: null };
    take.seconds = () => take.parts.reduce((sum, part) => sum + part.length, 0) / this.rate;
    this.list.unshift(take);
    this.list.splice(MOST_TAKES);
    this._open(take);
    this.player.grow();
    this._render();
    return take;
  }

  append(take, samples) {
    take.parts.push(samples);
    if (this.shown !== take) return;
    this.player.append(samples);
    this._frame();
  }

  /** Nothing more comes: `state` is "whole", "cancelled" or "failed". A take without sound goes. */
  end(take, state, report = null) {
    take.state = state;
    take.report = report;
    take.parts = [joined(take.parts)];
    if (this.shown === take && this.player.growing) this.player.end();
    if (!take.parts[0].length) this._remove(take);
    else if (this.shown === take) this._facts();
    this._render();
  }

  _open(take) {
    this.player.pause();
    this.shown = take;
    $("#take").hidden = take === null;
    if (take === null) return;
    if (take.state === "making") {
      this.player.grow();
      for (const part of take.parts) this.player.append(part);
    } else this.player.load([take.parts[0]]);
    this._facts();
    this._frame();
  }

  _facts() {
    const take = this.shown;
    $("#take-heading").textContent = `Take ${take.number}`;
    const state = { whole: "", making: ", being made", cancelled: ", cancelled", failed: ", not whole" }[take.state];
    $("#take-facts").textContent = `${take.voice}, seed ${take.seed ?? "…"}${state}`;
    $("#take-download").disabled = take.state === "making";
    for (const option of $("#take-format").options) option.disabled = option.value !== "wav" && take.state !== "whole";
    if ($("#take-format").selectedOptions[0].disabled) $("#take-format").value = "wav";
    $("#take-report").hidden = take.report === null;
    $("#take-segments").replaceChildren(...(take.report?.segments ?? []).map((segment) => el("tr", {},
      el("td", {}, el("button", { type: "button", class: "small", "aria-label": `Play from ${clock(segment.start)}`,
        onclick: () => { this.player.seek(segment.start); this.player.play(); } }, clock(segment.start))),
      el("td", { class: "words" }, segment.text, el("span", { class: "hint" }, `seed ${segment.seed}`)), el("td", { class: "n" }, String(segment.tokens)),
      el("td", {}, segment.attempts > 1 ? `${segment.verdict}, ${segment.attempts} attempts` : segment.verdict))));
  }

  _render() {
    $("#takes-none").hidden = this.list.length > 0;
    $("#takes").replaceChildren(...this.list.map((take) => el("li", { value: take.number, "aria-current": take === this.shown },
      el("p", { class: "said" }, take.request.input.slice(0, 120)),
      el("p", { class: "muted" }, `${take.voice}, seed ${take.seed ?? "…"}, ${take.state === "making" ? "being made" : clock(take.seconds())}${take.state === "cancelled" ? ", cancelled" : ""}`),
      el("div", { class: "controls" },
        this._button(take, "Play", () => { this._open(take); this._render(); this.player.play(); $("#take-play").focus(); }),
        this._button(take, "Use again", () => this.onreuse(take), "Put text, voice, seed and settings of take {n} back"),
        take.state === "making" ? null : this._button(take, "Remove", () => { this._remove(take); this._render(); $("#takes-heading").focus(); })))));
  }

  _button(take, text, onclick, label = `${text} take {n}`) {
    return el("button", { type: "button", class: "small", onclick, "aria-label": label.startsWith(text) ? label.replace("{n}", take.number) : `${text}: ${label.replace("{n}", take.number)}` }, text);
  }

  _remove(take) {
    this.list = this.list.filter((other) => other !== take);
    if (this.shown === take) this._open(this.list[0] ?? null);
  }

  /** Seconds that the picture spans: of a take that grows, what is expected. */
  _whole() {
    const { duration } = this.player;
    return this.shown?.state === "making" ? Math.max(duration, this.shown.expected ?? 5) : duration;
  }

  _wave(context, width, height, colour) {
    const take = this.shown;
    if (take) drawWave(context, width, height, colour, take.parts, this._whole() * this.rate, this.player.position / this._whole());
  }

  _frame() {
    const { position, duration } = this.player;
    const whole = this._whole();
    $("#take-position").value = whole ? position / whole : 0;
    $("#take-position").setAttribute("aria-valuetext", clock(position));
    $("#take-clock").textContent = `${clock(position)} of ${clock(duration)}`;
    this.redraw();
  }

  _state() {
    const { playing } = this.player;
    $("#take-play").textContent = playing ? "Stop" : "Play";
    $("#take-play").dataset.state = playing ? "stop" : "play";
  }

  async _download(take, format) {
    const name = `take-${take.number}-seed-${take.seed}.${format}`;
    if (format === "wav") {
      save(wav(take.parts[0], this.rate), name);
      return;
    }
    const button = $("#take-download");
    button.disabled = true;
    say($("#speak-status"), "It is spoken again with the same seed, for the file.");
    try {
      const body = { ...take.request, seed: take.seed, response_format: format, stream_format: "audio" };
      save(await (await ask("v1/audio/speech", { method: "POST", body })).blob(), name);
      say($("#speak-status"), `${name} is there.`);
    } catch (error) {
      say($("#speak-wrong"), error.message);
    } finally {
      button.disabled = this.shown?.state === "making";
    }
  }
}
