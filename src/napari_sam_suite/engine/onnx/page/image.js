// From a picture to the encoder's input, and from its points to the model's.

import { Told } from "./model.js";
import { greyOf, headerOf } from "./stored.js";

const PERCENTILES = [0.001, 0.999]; // of grey values: black and white
const SAMPLE = 1e6; // values that they are taken from

/**
 * Decode a file into {width, height, pixels (RGBA bytes), bitmap}.
 *
 * As the engine does: colours as they are, grey from black to white.
 */
export async function readPicture(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const header = headerOf(bytes);
  const { png, grey, depth, interlaced } = header;
  if (depth === 16 && !grey) {
    throw new Told(
      `${file.name} has colours of 16 bits, which would be cut to 8: save it with 8.`,
    );
  }
  if (depth === 16 && interlaced) {
    throw new Told(
      `${file.name} is interlaced and has 16 bits: save it without interlacing.`,
    );
  }
  if (png && grey && depth >= 8 && !interlaced) {
    return await stretch(await greyOf(bytes, header), header);
  }
  const picture = await decode(file);
  if (!grey || depth === 1) return picture;
  return await stretch(picture.pixels.filter((_, i) => i % 4 === 0), picture);
}

async function decode(file) {
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const bitmap = await createImageBitmap(file, options);
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const pixels = context.getImageData(0, 0, width, height).data;
  return { width, height, pixels, bitmap };
}

/** The picture of grey values, 0.1 % of them black and 0.1 % white. */
async function stretch(values, { width, height }) {
  const counts = new Uint32Array(values instanceof Uint16Array ? 65536 : 256);
  const stride = Math.max(1, Math.ceil(Math.sqrt((width * height) / SAMPLE)));
  for (let y = 0; y < height; y += stride) {
    for (let x = 0; x < width; x += stride) counts[values[y * width + x]] += 1;
  }
  const [low, high] = limitsOf(counts);
  const shades = Uint8ClampedArray.from(counts, (_, value) => {
    if (low === high) return value > low ? 255 : 0;
    const share = (value - low) / (high - low);
    return Math.floor(Math.min(Math.max(share, 0), 1) * 255 + 0.5);
  });
  const pixels = new Uint8ClampedArray(4 * values.length);
  for (let i = 0; i < values.length; i++) {
    pixels.fill(shades[values[i]], 4 * i, 4 * i + 3);
    pixels[4 * i + 3] = 255;
  }
  const bitmap = await createImageBitmap(new ImageData(pixels, width, height));
  return { width, height, pixels, bitmap };
}

/** Values at `PERCENTILES`; the lowest and the highest where those are one. */
function limitsOf(counts) {
  const ends = []; // for every value how many are not above it
  counts.forEach((count, value) => ends.push((ends[value - 1] || 0) + count));
  const total = ends[ends.length - 1];
  const at = (rank) => ends.findIndex((end) => end > rank);
  const [low, high] = PERCENTILES.map((share) => {
    const rank = share * (total - 1);
    const below = Math.floor(rank);
    const [a, b] = [at(below), at(Math.min(below + 1, total - 1))];
    return a + (b - a) * (rank - below);
  });
  return low === high ? [at(0), at(total - 1)] : [low, high];
}

/** Height and width that a picture fills in the model's square input. */
export function filledPart(picture, card, convention) {
  const side = card.input_size;
  if (card.resize === "stretch" && convention === "model") return [side, side];
  const ratio = side / Math.max(picture.width, picture.height);
  return [picture.height, picture.width].map((n) => Math.floor(n * ratio + 0.5));
}

/** Scale, normalise and pad: planes of float32, shape (1, 3, side, side). */
export function prepare(picture, card, [height, width]) {
  const side = card.input_size;
  const rows = triangles(picture.height, height);
  const columns = triangles(picture.width, width);
  const tall = scaleRows(picture, rows, height);
  const planes = new Float32Array(3 * side * side);
  for (let x = 0; x < width; x++) {
    const { first, weights } = columns[x];
    for (let y = 0; y < height; y++) {
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let k = 0; k < weights.length; k++) {
          sum += weights[k] * tall[(y * picture.width + first + k) * 3 + c];
        }
        const value = (sum / 255 - card.mean[c]) / card.std[c];
        planes[(c * side + y) * side + x] = value;
      }
    }
  }
  return planes;
}

function scaleRows(picture, rows, height) {
  const { width, pixels } = picture;
  const out = new Float32Array(height * width * 3);
  for (let y = 0; y < height; y++) {
    const { first, weights } = rows[y];
    for (let k = 0; k < weights.length; k++) {
      const start = (first + k) * width * 4;
      for (let x = 0; x < width; x++) {
        const to = (y * width + x) * 3;
        const from = start + x * 4;
        for (let c = 0; c < 3; c++) out[to + c] += weights[k] * pixels[from + c];
      }
    }
  }
  return out;
}

/** Bilinear weights with antialiasing: a triangle of inputs for every output. */
function triangles(length, wanted) {
  const scale = length / wanted;
  const reach = Math.max(scale, 1);
  return Array.from({ length: wanted }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - reach + 0.5), 0);
    const last = Math.min(Math.trunc(centre + reach + 0.5), length);
    const weights = [];
    for (let k = first; k < last; k++) {
      weights.push(Math.max(0, 1 - Math.abs((k - centre + 0.5) / reach)));
    }
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return { first, weights: weights.map((weight) => weight / total) };
  });
}
