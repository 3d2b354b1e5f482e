"use strict";
// The settings of a request, from /openapi.json: names, ranges and defaults stand in the server's own table.

const SETTINGS = {
  temperature: ["Temperature", "below 1 more even, above 1 more varied", 0.05],
  top_p: ["Top p", "draw among the likeliest tokens that together have this probability", 0.01],
  top_k: ["Top k", "draw among so many of the likeliest tokens", 1],
  repetition_penalty: ["Repetition penalty", "above 1, what was spoken becomes less likely", 0.05],
  speed: ["Speed", "the pitch stays", 0.05],
  max_tokens: ["Most tokens", "of a segment; 25 are a second", 1],
  latency: ["Latency", "“low” begins sooner, and the sound is a little different", { sentence: "sentence", low: "low" }],
  split: ["Long texts", "“auto” speaks them in segments", { auto: "auto", never: "never" }],
  watermark: ["Watermark", "an inaudible mark that says that this is synthetic", { perth: "Perth", "": "none" }],
};

class Settings {
  /** `fields` are the properties of a request for speech; `marked`: does the server insist on the watermark? */
  constructor(fields, marked) {
    this.fields = fields;
    const names = Object.keys(SETTINGS).filter((name) => name in fields && !(name === "watermark" && marked));
    this.inputs = Object.fromEntries(names.map((name) => [name, this._input(name)]));
    $("#settings-fields").replaceChildren(...names.map((name) => this._row(name)));
    $("#settings-fields").addEventListener("input", () => this._changed());
    $("#settings-reset").addEventListener("click", () => {
      this.set({});
      say($("#speak-status"), "The settings are the defaults again.");
    });
    this.set({});
  }

  /** What differs from the defaults, as fields of a request. */
  get values() {
    const found = {};
    for (const [name, input] of Object.entries(this.inputs)) {
      const text = input.value;
      if (text === "" && name !== "watermark") continue;
      const value = name === "watermark" && text === "" ? null : input.type === "number" ? Number(text) : text;
      if (value !== this.fields[name].default) found[name] = value;
    }
    return found;
  }

  /** Puts all fields to `values`, or their defaults. */
  set(values) {
    for (const [name, input] of Object.entries(this.inputs)) {
      input.value = (name in values ? values[name] : this.fields[name].default) ?? "";
    }
    this._changed();
  }

  _input(name) {
    const { minimum, maximum } = this.fields[name];
    const step = SETTINGS[name][2];
    const more = { id: `set-${name}`, "aria-describedby": `set-${name}-hint` };
    if (typeof step === "object") return el("select", more, Object.entries(step).map(([value, text]) => el("option", { value }, text)));
    return el("input", { type: "number", min: minimum, max: maximum, step: step === 1 ? 1 : "any", inputmode: "decimal", ...more });
  }

  _row(name) {
    const [title, hint, step] = SETTINGS[name];
    const { minimum, maximum, default: usual } = this.fields[name];
    const shown = typeof step === "object" ? step[usual] : usual;
    const range = typeof step === "object" ? "" : `, ${minimum} to ${grouped(maximum)}`;
    return el("div", { class: "setting" },
      el("label", { for: `set-${name}` }, title), this.inputs[name],
      el("span", { class: "hint", id: `set-${name}-hint` }, `${hint} (default ${shown}${range})`));
  }

  _changed() {
    const count = Object.keys(this.values).length;
    $("#settings-changed").textContent = count ? `${count} changed` : "all defaults";
  }
}
