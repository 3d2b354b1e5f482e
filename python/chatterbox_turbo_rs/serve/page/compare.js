"use strict";
// The view of a comparison: two sounds of the same tokens, heard in turn at the same place; their mels; and a blind test of them.

const DIFFERENCE = 1; // natural logarithm: where the colours of a mel's difference end

/** The largest of the absolute values. */
const largest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

function floatsOf(base64) {
  const bytes = bytesOf(base64);
  return new Float32Array(bytes.buffer, 0, bytes.byteLength >> 2);
}

class ComparisonView {
  constructor() {
    this.root = $("#comparison");
    this.player = new Player(24000);
    this.player.loop = true;
    this.player.onstate = () => this._state();
    this.player.onframe = () => this._frame();
    this.abx = null;
    this.letter = "A";
    const on = (selector, event, act) => $(selector).addEventListener(event, act);
    on("#cmp-play", "click", () => this._toggle());
    on("#cmp-loop", "change", () => this._loop());
    on("#cmp-position", "input", (event) => this.player.seek(event.target.value * this.player.duration));
    on("#cmp-case", "change", (event) => this._open(Number(event.target.value)));
    on("#abx-begin", "click", () => this._begin());
    on("#abx-stop", "click", () => this._result());
    on("#abx-again", "click", () => this._show("start"));
    on("#abx-csv", "click", () => save(new Blob([this.abx.csv(this._compared())], { type: "text/csv" }), "abx.csv"));
    for (const button of this.root.querySelectorAll("[data-hear], [data-listen]")) {
      button.addEventListener("click", () => this._hear(button.dataset.hear ?? button.dataset.listen));
    }
    for (const button of this.root.querySelectorAll("[data-answer]")) {
      button.addEventListener("click", () => this._answer(button.dataset.answer));
    }
    document.addEventListener("keydown", (event) => this._key(event));
    this.redraw = [
      drawn($("#cmp-wave-a"), (...to) => this._wave("a", ...to)),
      drawn($("#cmp-wave-b"), (...to) => this._wave("b", ...to)),
      ...["a", "b", "d"].map((name) => drawn($(`#cmp-mel-${name}`), (...to) => this._mel(name, ...to))),
    ];
  }

  /** Shows comparisons as the server makes them, of which the reader chooses. */
  show(cases) {
    this.cases = cases;
    $("#cmp-case-field").hidden = cases.length < 2;
    $("#cmp-case").replaceChildren(...cases.map((found, i) => el("option", { value: i }, found.input)));
    this.root.hidden = false;
    this._open(0);
  }

  hide() {
    this.player.pause();
    this.root.hidden = true;
  }

  _open(index) {
    const found = (this.found = this.cases[index]);
    this.player.rate = found.sample_rate;
    this.samples = ["a", "b"].map((side) => samplesOf(bytesOf(found[side].audio)));
    this.player.load(this.samples);
    const [frames, bands] = found.mel_shape;
    const [a, b] = ["a", "b"].map((side) => floatsOf(found[side].mel));
    const low = a.reduce((least, value) => Math.min(least, value), Infinity);
    const high = a.reduce((most, value) => Math.max(most, value), -Infinity);
    const difference = b.map((value, i) => value - a[i]);
    const map = colours(VIRIDIS);
    this.mels = {
      a: melPicture(a, frames, bands, low, high, map),
      b: melPicture(b, frames, bands, low, high, map),
      d: melPicture(difference, frames, bands, -DIFFERENCE, DIFFERENCE, colours(BLUE_RED)),
    };
    this._facts(found, largest(difference));
    this.abx = null;
    this._show("start");
    this._hear("A", false);
    this._frame();
    this.redraw.forEach((again) => again());
  }

  _facts(found, most) {
    const sides = ["a", "b"].flatMap((side) => {
      const seconds = Object.values(found[side].timings).reduce((sum, value) => sum + value, 0);
      return [el("div", {}, el("dt", {}, side.toUpperCase()), el("dd", {}, found[side].name),
        el("dd", { class: "muted" }, `made in ${seconds.toFixed(2)} s`))];
    });
    $("#cmp-sides").replaceChildren(...sides);
    const { max_abs: worst, relative_rms: relative, mel_mean: mean } = found.difference;
    const same = worst === 0;
    const decibels = same ? "" : `${(20 * Math.log10(relative)).toFixed(1)} dB below the sound`.replace("-", "");
    const own = { same: "B alone would draw the same ones", other: `B alone would draw others from token ${found.own_tokens_from + 1} on` };
    const drawnAlone = found.own_tokens_from === null ? own.same : own.other;
    const facts = [
      ["Text", found.input],
      ["Seed", found.seed],
      ["Tokens", `${found.tokens}, the same on both sides; ${drawnAlone}`],
      ["Samples", same ? "the same to the bit" : `differ by ${worst.toPrecision(2)} of full scale at most; the difference is ${decibels}${relative > 0.1 ? " (other phases alone, which are hardly heard, can make it so: see the mels)" : ""}`],
      ["Mels", most === 0 ? "the same" : `differ by ${mean.toPrecision(2)} on average, ${most.toPrecision(2)} at most (natural logarithms)`],
    ];
    $("#cmp-facts").replaceChildren(...facts.map(([name, text]) => el("div", {}, el("dt", {}, name), el("dd", {}, text))));
    say($("#cmp-mel-words"), `Blue is quieter and red louder in B, strongest from ±${DIFFERENCE} on.`);
    this.same = same;
  }

  _compared() {
    const { found } = this;
    return { a: found.a.name, b: found.b.name, seed: found.seed, text: found.input };
  }

  _wave(side, context, width, height, colour) {
    const samples = this.samples?.[side === "a" ? 0 : 1];
    if (samples) drawWave(context, width, height, colour, [samples], samples.length, this.player.position / this.player.duration, side);
  }

  _mel(name, context, width, height, colour) {
    if (this.mels) drawMel(context, width, height, colour, this.mels[name], this.player.position / this.player.duration);
  }

  _frame() {
    const { position, duration } = this.player;
    $("#cmp-position").value = duration ? position / duration : 0;
    $("#cmp-position").setAttribute("aria-valuetext", clock(position));
    $("#cmp-clock").textContent = `${clock(position)} of ${clock(duration)}`;
    this.redraw?.forEach((again) => again());
  }

  _state() {
    const { playing } = this.player;
    const button = $("#cmp-play");
    button.textContent = playing ? "Stop" : "Play";
    button.dataset.state = playing ? "stop" : "play";
  }

  _toggle() {
    if (this.player.playing) this.player.pause();
    else this.player.play();
  }

  _loop() {
    const { playing } = this.player;
    this.player.pause();
    this.player.loop = $("#cmp-loop").checked;
    if (playing) this.player.play();
  }

  /** Goes over to A, B or, in a trial, X; starts to play where it does not. */
  _hear(letter, play = true) {
    const trial = this.abx !== null && !this.abx.over && !this.abx.stopped;
    if (letter === "X" && !trial) return;
    this.letter = letter;
    if (trial && play) this.abx.heard[letter] = true;
    this.player.hear(trial ? this.abx.track(letter) : letter === "A" ? 0 : 1);
    for (const button of this.root.querySelectorAll("[data-hear], [data-listen]")) {
      button.setAttribute("aria-pressed", String((button.dataset.hear ?? button.dataset.listen) === letter));
    }
    if (play && !this.player.playing) this.player.play();
  }

  _show(part) {
    for (const name of ["start", "trial", "result"]) $(`#abx-${name}`).hidden = name !== part;
    $("#cmp-switch").hidden = $("#cmp-case").disabled = part === "trial";
    if (part === "start") {
      this.abx = null;
      say($("#abx-status"), this.same ? "A and B are the same to the bit: whoever is right here guesses." : "");
    }
  }

  _begin() {
    const field = $("#abx-trials");
    if (!field.reportValidity()) return;
    this.abx = new Abx(Number(field.value));
    this._show("trial");
    this._trial();
  }

  _trial() {
    const done = this.abx.answers.length;
    say($("#abx-count"), `Trial ${done + 1} of ${this.abx.trials}`);
    say($("#abx-status"), "");
    $("#abx-progress").max = this.abx.trials;
    $("#abx-progress").value = done;
    $("#abx-count").focus({ preventScroll: true });
    this._hear("A", false); // every trial begins alike
    for (const button of this.root.querySelectorAll("[data-listen]")) button.setAttribute("aria-pressed", "false");
  }

  _answer(letter) {
    if (!this.abx.heard.X) {
      say($("#abx-status"), "Listen to X first.");
      return;
    }
    this.abx.answer(letter);
    if (this.abx.over) this._result();
    else this._trial();
  }

  _result() {
    this.player.pause();
    const { abx } = this;
    if (abx.answers.length === 0) {
      this._show("start");
      return;
    }
    abx.stopped = !abx.over;
    this._show("result");
    this._hear("A", false);
    const count = abx.answers.length;
    const p = abx.p < 0.001 ? "below 0.001" : abx.p.toFixed(3);
    say($("#abx-verdict"), `${abx.right} of ${count} right, p = ${p}`.replace("= below", "below"));
    const told = abx.p <= 0.05 ? "You hear a difference: guessing is right so often in no more than 1 of 20 tests."
      : "This shows no difference that you hear: guessing is often right so often.";
    const stopped = abx.stopped ? ` The test was stopped after ${count} of ${abx.trials} trials: whoever stops when it suits them finds differences by chance.` : "";
    say($("#abx-meaning"), told + stopped);
    $("#abx-rows").replaceChildren(...abx.answers.map((found) => el("tr", {},
      el("td", {}, String(found.trial)), el("td", {}, found.x), el("td", {}, found.answer),
      el("td", {}, found.correct ? "yes" : "no"), el("td", {}, clock(found.seconds)))));
    $("#abx-verdict").focus({ preventScroll: true });
  }

  _key(event) {
    if (this.root.hidden || this.root.offsetParent === null || typing(event)) return;
    const key = event.key.toUpperCase();
    const trial = !$("#abx-trial").hidden;
    if (key === "A" || key === "B" || (key === "X" && trial)) this._hear(key);
    else if ((key === "1" || key === "2") && trial && !event.repeat) this._answer(key === "1" ? "A" : "B");
    else if (key === " " && !event.target.closest("button, a, summary, input")) this._toggle();
    else return;
    event.preventDefault();
  }
}
