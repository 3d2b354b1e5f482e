"use strict";
// Sound: 16 bit samples, WAV files, and a player of one sound that grows or of two at once.

const FADE = 0.006; // seconds that a switch from one sound to the other takes

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** float32 samples of little-endian 16 bit ones. */
function samplesOf(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const samples = new Float32Array(bytes.byteLength >> 1);
  for (let i = 0; i < samples.length; i++) samples[i] = view.getInt16(2 * i, true) / 32768;
  return samples;
}

function joined(parts) {
  const whole = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** A WAV file, 16 bit mono. */
function wav(samples, rate) {
  const data = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, letters) => [...letters].forEach((letter, i) => data.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  data.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  [[16, 4], [1, 2], [1, 2], [rate, 4], [2 * rate, 4], [2, 2], [16, 2]].reduce((at, [value, size]) => {
    if (size === 4) data.setUint32(at, value, true);
    else data.setUint16(at, value, true);
    return at + size;
  }, 16);
  text(36, "data");
  data.setUint32(40, 2 * samples.length, true);
  for (let i = 0; i < samples.length; i++) {
    data.setInt16(44 + 2 * i, Math.max(-32768, Math.min(32767, Math.round(samples[i] * 32768))), true);
  }
  return new Blob([data], { type: "audio/wav" });
}

/**
 * Plays sounds of one length at the same time, of which one is heard: `hear(i)` goes over to another at the same position, without a gap.
 * A single sound may also grow while it plays (`grow`, `append`, `end`). `onframe` is called while it plays, `onstate` when it starts and stops.
 */
class Player {
  constructor(rate) {
    this.rate = rate;
    this.loop = false;
    this.playing = false;
    this.onframe = () => {};
    this.onstate = () => {};
    this.load([new Float32Array(0)]);
  }

  /** Other sounds, float32; the first one is heard. */
  load(tracks) {
    this.pause();
    this.tracks = tracks.map((samples) => [samples]);
    this.length = tracks[0].length;
    this.growing = false;
    this.heard = 0;
    this.offset = 0; // where it stands while it is silent, in seconds
    this.gaps = 0; // how often the sound was not there in time
  }

  /** A sound of which nothing is there yet. */
  grow() {
    this.load([new Float32Array(0)]);
    this.growing = true;
  }

  append(samples) {
    this.tracks[0].push(samples);
    this.length += samples.length;
    if (this.playing) this._schedule(samples);
  }

  /** Nothing more comes. */
  end() {
    this.growing = false;
    this.tracks = this.tracks.map((parts) => [joined(parts)]);
    return this.tracks[0][0];
  }

  get duration() {
    return this.length / this.rate;
  }

  get position() {
    if (!this.playing || !this.gains) return this.offset;
    const at = Math.max(this.context.currentTime - this.started, this.offset);
    return this.loop && this.duration ? at % this.duration : Math.min(at, this.duration);
  }

  async play() {
    if (this.playing) return;
    this.context ??= new AudioContext({ sampleRate: this.rate });
    this.playing = true;
    const turn = (this.turn = {});
    this.onstate();
    await this.context.resume();
    if (!this.playing || this.turn !== turn) return; // paused meanwhile
    if (!this.growing && this.offset >= this.duration - 0.001) this.offset = 0;
    const when = this.context.currentTime + 0.03;
    this.started = when - this.offset;
    this.next = when; // when the sound that comes next begins
    this.sources = new Set();
    this.gains = this.tracks.map((_, i) => {
      const gain = this.context.createGain();
      gain.gain.value = i === this.heard ? 1 : 0;
      gain.connect(this.context.destination);
      return gain;
    });
    const skipped = Math.round(this.offset * this.rate);
    const sounds = this.tracks.map((parts) => joined(parts));
    if (this.loop && !this.growing) sounds.forEach((samples, i) => this._source(samples, i, when, this.offset, true));
    else if (sounds[0].length > skipped) {
      sounds.forEach((samples, i) => this._source(samples.subarray(skipped), i, when, 0, false));
      this.next = when + (sounds[0].length - skipped) / this.rate;
    }
    this._watch();
  }

  pause() {
    if (!this.playing) return;
    this.offset = this.position;
    this._stop();
  }

  seek(seconds) {
    const playing = this.playing;
    if (playing) this._stop();
    this.offset = Math.max(0, Math.min(seconds, this.duration));
    if (playing) this.play();
    else this.onframe();
  }

  /** Goes over to sound `index`. */
  hear(index) {
    if (index === this.heard) return;
    this.heard = index;
    if (!this.playing || !this.gains) return;
    const now = this.context.currentTime;
    this.gains.forEach(({ gain }, i) => {
      gain.cancelScheduledValues(now);
      gain.setValueAtTime(gain.value, now);
      gain.linearRampToValueAtTime(i === index ? 1 : 0, now + FADE);
    });
  }

  _source(samples, track, when, offset, loop) {
    const buffer = this.context.createBuffer(1, Math.max(samples.length, 1), this.rate);
    buffer.copyToChannel(samples, 0);
    const source = new AudioBufferSourceNode(this.context, { buffer, loop });
    source.connect(this.gains[track]);
    source.start(when, offset);
    this.sources.add(source);
    source.addEventListener("ended", () => this.sources?.delete(source));
  }

  /** Sound that came while it plays. */
  _schedule(samples) {
    if (!this.gains) return; // `play` is about to take it
    const now = this.context.currentTime;
    if (this.next < now + 0.005) {
      if (this.next > this.started) this.gaps++;
      const late = now + 0.05 - this.next;
      this.next += late;
      this.started += late;
    }
    this._source(samples, 0, this.next, 0, false);
    this.next += samples.length / this.rate;
  }

  _watch() {
    if (!this.playing) return;
    const over = !this.loop && !this.growing && this.context.currentTime >= this.next;
    if (over) {
      this.offset = this.duration;
      this._stop();
    }
    this.onframe();
    if (this.playing) this.timer = requestAnimationFrame(() => this._watch());
  }

  _stop() {
    cancelAnimationFrame(this.timer);
    for (const source of this.sources ?? []) source.stop();
    for (const gain of this.gains ?? []) gain.disconnect();
    this.sources = this.gains = null;
    this.playing = false;
    this.onstate();
  }
}
