// Pixels as a file stores them: a browser cuts 16 bits to 8, and loses what is
// transparent.

const PNG = 0x89504e47; // how such a file begins
const JPEG = 0xffd8;
const IDAT = 0x49444154; // the chunks with pixels
const NO_FRAMES = [0xc4, 0xc8, 0xcc]; // among the markers of frames in a JPEG

/**
 * What the header of a file says of its pixels: {grey, depth}.
 *
 * Of a PNG also {png, width, height, channels, interlaced}; channels only if it is grey.
 */
export function headerOf(bytes) {
  const view = new DataView(bytes.buffer);
  if (bytes.length > 28 && view.getUint32(0) === PNG) {
    const colours = bytes[25];
    return {
      png: true,
      grey: colours === 0 || colours === 4,
      depth: bytes[24],
      width: view.getUint32(16),
      height: view.getUint32(20),
      channels: colours === 4 ? 2 : 1,
      interlaced: bytes[28] !== 0,
    };
  }
  const jpeg = bytes.length > 2 && view.getUint16(0) === JPEG;
  return { png: false, grey: jpeg && componentsOf(view) === 1, depth: 8 };
}

/** Number of colours of a JPEG; 0 if it does not say. */
function componentsOf(view) {
  let at = 2;
  while (at + 9 < view.byteLength) {
    const marker = view.getUint8(at + 1);
    if (marker === 0xff) {
      at += 1; // a byte that fills
      continue;
    }
    if (marker >= 0xc0 && marker <= 0xcf && !NO_FRAMES.includes(marker)) {
      return view.getUint8(at + 9);
    }
    at += 2 + view.getUint16(at + 2);
  }
  return 0;
}

/** Grey values of a PNG of 8 or 16 bits that is not interlaced, without its alpha. */
export async function greyOf(bytes, { width, height, depth, channels }) {
  const data = await inflate(bytes);
  const step = (channels * depth) / 8;
  const length = width * step;
  if (data.length < (length + 1) * height) throw new Error("The file is cut off.");
  const values = new (depth === 16 ? Uint16Array : Uint8Array)(width * height);
  let above = new Uint8Array(length);
  for (let y = 0; y < height; y++) {
    const start = y * (length + 1) + 1;
    const row = data.subarray(start, start + length);
    unfilter(row, above, step, PREDICTIONS[data[start - 1]]);
    for (let x = 0; x < width; x++) {
      const at = x * step;
      values[y * width + x] = depth === 16 ? row[at] * 256 + row[at + 1] : row[at];
    }
    above = row;
  }
  return values;
}

async function inflate(bytes) {
  const view = new DataView(bytes.buffer);
  const parts = [];
  for (let at = 8; at + 12 <= bytes.length; at += 12 + view.getUint32(at)) {
    const end = at + 8 + view.getUint32(at);
    if (view.getUint32(at + 4) === IDAT) parts.push(bytes.subarray(at + 8, end));
  }
  const inflater = new DecompressionStream("deflate");
  const stream = new Blob(parts).stream().pipeThrough(inflater);
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// What a byte was predicted from, by the filter of its row: the bytes of the pixel to
// the left, of that above, and of the one above left.
const PREDICTIONS = [
  () => 0,
  (left) => left,
  (left, up) => up,
  (left, up) => (left + up) >> 1,
  nearest,
];

/** Paeth's: the one that is closest to what the three make a plane of. */
function nearest(left, up, corner) {
  const plane = left + up - corner;
  const [a, b, c] = [left, up, corner].map((value) => Math.abs(plane - value));
  if (a <= b && a <= c) return left;
  return b <= c ? up : corner;
}

function unfilter(row, above, step, predict) {
  for (let i = 0; i < row.length; i++) {
    const left = i < step ? 0 : row[i - step];
    const corner = i < step ? 0 : above[i - step];
    row[i] += predict(left, above[i], corner); // modulo 256, as it is an array of bytes
  }
}
