"use strict";
// Pictures: waveforms and mels on a canvas, in the colours of the page, sharp on any screen, drawn again when these change.

/** Draws with `draw(context, width, height, colour)` now and whenever the size or the colour scheme changes; returns what draws it again. */
function drawn(canvas, draw) {
  const again = () => {
    const { clientWidth: width, clientHeight: height } = canvas;
    if (!width || !height) return;
    const scale = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    const style = getComputedStyle(canvas);
    draw(context, width, height, (name) => style.getPropertyValue(`--${name}`).trim());
  };
  new ResizeObserver(again).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  return again;
}

/** The lowest and highest sample of every column: [low, high, low, high …]. */
function peaks(parts, length, columns) {
  const found = new Float32Array(2 * columns);
  let at = 0;
  for (const part of parts) {
    for (let i = 0; i < part.length; i++, at++) {
      const column = Math.min(Math.floor((at * columns) / length), columns - 1);
      if (part[i] < found[2 * column]) found[2 * column] = part[i];
      if (part[i] > found[2 * column + 1]) found[2 * column + 1] = part[i];
    }
  }
  return found;
}

const known = new WeakMap(); // canvas → the peaks that were drawn last

function peaksFor(canvas, parts, length, columns) {
  const total = parts.reduce((sum, part) => sum + part.length, 0);
  const before = known.get(canvas);
  if (before && before.first === parts[0] && before.total === total && before.length === length && before.columns === columns) return before.found;
  const found = peaks(parts, length, columns);
  known.set(canvas, { first: parts[0], total, length, columns, found });
  return found;
}

/** A waveform; what was heard is in the stronger colour. `length` may be more than there is: the rest stays empty. */
function drawWave(context, width, height, colour, parts, length, heard, name = "a") {
  const columns = Math.max(1, Math.floor(width / 2));
  const found = peaksFor(context.canvas, parts, Math.max(length, 1), columns);
  let loudest = 0.05;
  for (const value of found) loudest = Math.max(loudest, Math.abs(value));
  const scale = (0.48 * height) / loudest;
  context.fillStyle = colour("line");
  context.fillRect(0, height / 2, width, 1);
  for (let i = 0; i < columns; i++) {
    const top = height / 2 - found[2 * i + 1] * scale;
    const size = (found[2 * i + 1] - found[2 * i]) * scale;
    if (!size) continue;
    context.fillStyle = colour(i / columns <= heard ? name : `${name}-soft`);
    context.fillRect(2 * i, top, 1.4, Math.max(size, 1));
  }
}

const VIRIDIS = ["440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725"];
const BLUE_RED = ["053061", "2166ac", "4393c3", "92c5de", "d1e5f0", "f7f7f7", "fddbc7", "f4a582", "d6604d", "b2182b", "67001f"];

/** 256 colours between anchors of a map, as [r, g, b]. */
function colours(anchors) {
  const points = anchors.map((text) => [0, 2, 4].map((i) => parseInt(text.slice(i, i + 2), 16)));
  return Array.from({ length: 256 }, (_, level) => {
    const at = (level / 255) * (points.length - 1);
    const i = Math.min(Math.floor(at), points.length - 2);
    return points[i].map((value, c) => Math.round(value + (points[i + 1][c] - value) * (at - i)));
  });
}

/** A mel [frames, bands] as a picture one pixel a value, low bands at the bottom. */
function melPicture(values, frames, bands, low, high, map) {
  const canvas = document.createElement("canvas");
  canvas.width = frames;
  canvas.height = bands;
  const context = canvas.getContext("2d");
  const image = context.createImageData(frames, bands);
  for (let t = 0; t < frames; t++) {
    for (let band = 0; band < bands; band++) {
      const level = Math.round((255 * (values[t * bands + band] - low)) / (high - low || 1));
      const [r, g, b] = map[Math.max(0, Math.min(255, level))];
      image.data.set([r, g, b, 255], 4 * ((bands - 1 - band) * frames + t));
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Puts a mel's picture and a line at the place that is heard on a canvas. */
function drawMel(context, width, height, colour, picture, heard) {
  context.imageSmoothingEnabled = false;
  context.drawImage(picture, 0, 0, width, height);
  context.fillStyle = colour("mark");
  context.fillRect(Math.min(heard * width, width - 2), 0, 2, height);
}
