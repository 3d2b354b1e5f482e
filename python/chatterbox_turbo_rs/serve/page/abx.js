"use strict";
// A blind listening test. In every trial X is A or B, by chance; the listener says which. The p-value is the chance to be right so often by guessing.

/** The chance of `right` or more of `trials` by guessing: the upper tail of a binomial distribution with 1/2. */
function binomial(right, trials) {
  let term = 0; // the logarithm of the number of ways, so that it holds for any number of trials
  let sum = 0;
  for (let k = 0; k <= trials; k++) {
    if (k >= right) sum += Math.exp(term - trials * Math.LN2);
    term += Math.log(trials - k) - Math.log(k + 1);
  }
  return Math.min(1, sum);
}

class Abx {
  /** `trials` labels are drawn now, each a fair coin of the browser's cryptographic generator; nothing shows them before the end. */
  constructor(trials) {
    this.trials = trials;
    this.answers = [];
    this.#hidden = [...crypto.getRandomValues(new Uint8Array(trials))].map((byte) => byte & 1);
    this.begin();
  }

  #hidden;

  begin() {
    this.heard = { A: false, B: false, X: false };
    this.since = performance.now();
  }

  /** 0 or 1: which of the two sounds stands behind a letter in this trial. */
  track(letter) {
    return letter === "X" ? this.#hidden[this.answers.length] : letter === "A" ? 0 : 1;
  }

  get over() {
    return this.answers.length === this.trials;
  }

  /** What the listener takes X for, "A" or "B". */
  answer(letter) {
    const x = "AB"[this.track("X")];
    const seconds = (performance.now() - this.since) / 1000;
    this.answers.push({ trial: this.answers.length + 1, x, answer: letter, correct: x === letter, seconds });
    this.begin();
  }

  get right() {
    return this.answers.filter((answer) => answer.correct).length;
  }

  get p() {
    return binomial(this.right, this.answers.length);
  }

  /** The results as CSV, each row with what was compared (`more`: column → text). */
  csv(more = {}) {
    const quoted = (value) => (/[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
    const columns = ["trial", "x", "answer", "correct", "seconds"];
    const rows = this.answers.map((answer) => [
      answer.trial, answer.x, answer.answer, answer.correct ? 1 : 0, answer.seconds.toFixed(2), ...Object.values(more),
    ]);
    return [[...columns, ...Object.keys(more)], ...rows].map((row) => row.map(quoted).join(",")).join("\r\n") + "\r\n";
  }
}
