// From a picture to the encoder's input, and from its points to the model's.

/** Decode a file into {width, height, pixels (RGBA bytes), bitmap}. */
export async function readPicture(file) {
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const bitmap = await createImageBitmap(file, options);
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const pixels = context.getImageData(0, 0, width, height).data;
  return { width, height, pixels, bitmap };
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
