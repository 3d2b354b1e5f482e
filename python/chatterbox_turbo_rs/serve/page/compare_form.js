"use strict";
// The form of a comparison: two plans, what each is computed with, and the request for both.

class CompareForm {
  constructor(settings) {
    this.settings = settings;
    this.view = new ComparisonView();
    this.stop = null;
    $("#compare-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this._compare();
    });
    $("#compare-cancel").addEventListener("click", () => this.stop?.abort());
    $("#compare-text").addEventListener("input", () => this._count());
  }

  /** Asks what can be compared here. */
  async refresh() {
    const can = (this.can = await (await ask("v1/audio/comparisons")).json());
    $("#compare-text").maxLength = can.max_input;
    this._count();
    // 8 bits are T3's alone, whose tokens both sides share: what is heard is bfloat16.
    const other = can.precisions.find((name) => name === (can.precision.includes("bf16") ? "f32" : "bf16"));
    $("#compare-sides").replaceChildren(this._side("a", can.precision), this._side("b", other ?? can.precision));
    const missing = new Map();
    for (const { stage, python, rust } of can.stages) {
      for (const [side, reason] of Object.entries({ Python: python, Rust: rust })) {
        if (reason) missing.set(`${side}: ${reason}`, [...(missing.get(`${side}: ${reason}`) ?? []), stage]);
      }
    }
    $("#compare-missing").hidden = missing.size === 0;
    $("#compare-missing").replaceChildren(el("p", {}, "What cannot be chosen here, and why:"),
      el("ul", {}, [...missing].map(([reason, stages]) => el("li", {}, `${stages.join(", ")} in ${reason}`))));
  }

  _count() {
    $("#compare-counter").textContent = `${$("#compare-text").value.length} of ${this.can?.max_input ?? "…"} characters`;
  }

  _side(side, precision) {
    const { can } = this;
    const all = (name) => can.stages.every((stage) => stage[name] === null);
    const id = (name) => `side-${side}-${name}`;
    const plan = el("select", { id: id("plan"), onchange: () => (stages.hidden = plan.value !== "stages") },
      el("option", { value: "auto" }, "as the server does"),
      el("option", { value: "rust", disabled: !all("rust") }, "all in Rust"),
      el("option", { value: "python", disabled: !all("python") }, all("python") ? "all in Python" : "all in Python (not here)"),
      el("option", { value: "stages" }, "stage by stage"));
    const stages = el("div", { class: "stages", hidden: true }, can.stages.map(({ stage, now, ...here }) =>
      el("p", { class: "field" }, el("label", { for: id(stage) }, stage),
        el("select", { id: id(stage), "data-stage": stage }, ["rust", "python"].map((name) =>
          el("option", { value: name, selected: name === now, disabled: here[name] !== null }, name === "rust" ? "Rust" : "Python"))))));
    return el("fieldset", { class: `side-${side}`, "data-side": side }, el("legend", {}, `Side ${side.toUpperCase()}`),
      el("p", { class: "field" }, el("label", { for: id("plan") }, "Plan"), plan),
      el("p", { class: "field" }, el("label", { for: id("precision") }, "Precision"),
        el("select", { id: id("precision") }, can.precisions.map((name) =>
          el("option", { value: name, selected: name === precision }, name === can.precision ? `${name} (the server's)` : name)))),
      stages);
  }

  _chosen(side) {
    const plan = $(`#side-${side}-plan`).value;
    const chosen = [...document.querySelectorAll(`[data-side="${side}"] [data-stage]`)];
    const backends = plan === "stages" ? Object.fromEntries(chosen.map((field) => [field.dataset.stage, field.value])) : plan === "auto" ? null : plan;
    return { backends, precision: $(`#side-${side}-precision`).value };
  }

  async _compare() {
    if (this.stop) return;
    const { temperature, top_p, top_k, repetition_penalty, max_tokens, watermark } = this.settings.values;
    const body = {
      input: $("#compare-text").value, voice: $("#compare-voice").value, seed: $("#compare-seed").value,
      a: this._chosen("a"), b: this._chosen("b"), temperature, top_p, top_k, repetition_penalty, max_tokens, watermark,
    };
    this.view.hide();
    this._busy(true);
    try {
      const answer = await ask("v1/audio/comparisons", { method: "POST", body, signal: this.stop.signal });
      this.view.show([await answer.json()]);
      say($("#compare-status"), "Both are there.");
      $("#cmp-play").focus();
    } catch (error) {
      say($("#compare-status"), error.name === "AbortError" ? "Cancelled." : "");
      if (error.name !== "AbortError") say($("#compare-wrong"), error.message);
    } finally {
      this._busy(false);
    }
  }

  _busy(busy) {
    this.stop = busy ? new AbortController() : null;
    $("#compare-go").disabled = busy;
    $("#compare-cancel").disabled = !busy;
    $("#comparing").hidden = !busy;
    if (busy) {
      say($("#compare-status"), "The two sounds are being made. Another precision is loaded first.");
      say($("#compare-wrong"), "");
    }
  }
}
