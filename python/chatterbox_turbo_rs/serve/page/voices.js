"use strict";
// Voices: the list, and a new one from a file or the microphone.

const LONGEST = 60; // seconds of a recording

class Voices {
  constructor(about) {
    this.clip = null; // a Blob and what it is called
    this.recording = null;
    $("#voices-kept").hidden = about.keeps_voices;
    $("#voice-fields").disabled = !about.keeps_voices;
    $("#voice-file").addEventListener("change", (event) => {
      const [file] = event.target.files;
      if (file) this._take(file, file.name);
    });
    $("#record").addEventListener("click", () => (this.recording ? this._finish() : this._record()));
    $("#voice-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this._add();
    });
  }

  /** Asks for the list again and fills every choice of a voice. */
  async refresh() {
    const { voices } = await (await ask("v1/audio/voices")).json();
    for (const choice of document.querySelectorAll("select.voices")) {
      const before = choice.value;
      choice.replaceChildren(...voices.map((voice) => el("option", { value: voice.id }, voice.name)));
      if (voices.some((voice) => voice.id === before)) choice.value = before;
    }
    $("#voice-list").replaceChildren(...voices.map((voice) => el("li", {}, el("span", {}, voice.name),
      voice.id === "default" ? el("span", { class: "muted" }, "the model's own")
        : el("button", { type: "button", class: "small", "aria-label": `Remove ${voice.name}`, onclick: () => this._remove(voice.id) }, "Remove"))));
    say($("#voices-wrong"), voices.length ? "" : "There is no voice yet: add one.");
  }

  async _remove(name) {
    if (!confirm(`Remove the voice ${name}? Its file is deleted.`)) return;
    try {
      await ask(`v1/audio/voices/${encodeURIComponent(name)}`, { method: "DELETE" });
      await this.refresh();
      say($("#voices-status"), `${name} is removed.`);
    } catch (error) {
      say($("#voices-wrong"), error.message);
    }
  }

  async _add() {
    say($("#voice-wrong"), "");
    if (!this.clip) {
      say($("#voice-wrong"), "A clip is missing: choose a file or record one.");
      return;
    }
    const form = new FormData();
    const name = $("#voice-name").value;
    form.append("name", name);
    form.append("consent", $("#consent").value);
    form.append("audio_sample", this.clip.blob, this.clip.name);
    $("#voice-add").disabled = true;
    say($("#voice-status"), "The clip becomes a voice. This may take a moment.");
    try {
      await ask("v1/audio/voices", { method: "POST", body: form });
      await this.refresh();
      for (const choice of document.querySelectorAll("select.voices")) choice.value = name;
      say($("#voice-status"), `${name} is there, and is chosen in Speak.`);
      $("#voice-name").value = "";
    } catch (error) {
      say($("#voice-status"), "");
      say($("#voice-wrong"), error.message);
    } finally {
      $("#voice-add").disabled = false;
    }
  }

  _take(blob, name) {
    this.clip = { blob, name };
    const preview = $("#preview");
    URL.revokeObjectURL(preview.src);
    preview.src = URL.createObjectURL(blob);
    preview.hidden = false;
    $("#clip").textContent = name;
  }

  async _record() {
    say($("#voice-wrong"), "");
    if (!navigator.mediaDevices) {
      say($("#voice-wrong"), "Browsers give the microphone only to pages of https or of this machine (127.0.0.1).");
      return;
    }
    try {
      const wanted = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
      const stream = await navigator.mediaDevices.getUserMedia({ audio: wanted });
      const context = new AudioContext();
      await context.audioWorklet.addModule("page/recorder.js");
      const node = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
      const parts = [];
      this.recording = { stream, context, parts, length: 0 };
      node.port.onmessage = ({ data }) => this._heard(data);
      context.createMediaStreamSource(stream).connect(node);
    } catch (error) {
      say($("#voice-wrong"), error.name === "NotAllowedError" ? "The browser did not give the microphone." : `There is no microphone: ${error.message}`);
      return;
    }
    $("#record").textContent = "Stop recording";
    $("#level").hidden = false;
    say($("#voice-status"), "Recording");
  }

  _heard(samples) {
    const { recording } = this;
    if (!recording) return;
    recording.parts.push(samples);
    recording.length += samples.length;
    const seconds = recording.length / recording.context.sampleRate;
    $("#level").value = Math.max($("#level").value * 0.9, samples.reduce((most, value) => Math.max(most, Math.abs(value)), 0));
    $("#recorded").textContent = clock(seconds);
    if (seconds > LONGEST) this._finish();
  }

  _finish() {
    const { stream, context, parts, length } = this.recording;
    this.recording = null;
    for (const track of stream.getTracks()) track.stop();
    const rate = context.sampleRate;
    context.close();
    $("#record").textContent = "Record again";
    $("#level").hidden = true;
    $("#recorded").textContent = "";
    $("#voice-file").value = "";
    this._take(wav(joined(parts), rate), "recording.wav");
    $("#clip").textContent = `Recording of ${clock(length / rate)}`;
    say($("#voice-status"), length / rate > 5 ? "The recording is there." : "The recording is shorter than 5 seconds: record again.");
  }
}
