// From logits to outlines in image pixels, and to GeoJSON.
// Inside, coordinates are pixel centres: pixel i is centred on i.

const TOLERANCE = 0.3; // pixels by which an outline may be simplified
const CORNER = 0.5; // GeoJSON counts from the corner of the first pixel

/**
 * Threshold logits (low x low) at the size of the image, bilinearly.
 *
 * filled: height and width of the image in the model's input of `side` pixels.
 */
export function maskOf(logits, low, side, filled, width, height) {
  const rows = samples(height, filled[0] * (low / side), low);
  const columns = samples(width, filled[1] * (low / side), low);
  const mask = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    const r = rows[y];
    for (let x = 0; x < width; x++) {
      const c = columns[x];
      const above = mix(logits[r.a * low + c.a], logits[r.a * low + c.b], c.t);
      const below = mix(logits[r.b * low + c.a], logits[r.b * low + c.b], c.t);
      mask[y * width + x] = mix(above, below, r.t) > 0 ? 1 : 0;
    }
  }
  return mask;
}

const mix = (a, b, t) => a + (b - a) * t;

function samples(length, span, low) {
  return Array.from({ length }, (_, i) => {
    const at = Math.max(((i + 0.5) * span) / length - 0.5, 0);
    const a = Math.min(Math.floor(at), low - 1);
    return { a, b: Math.min(a + 1, low - 1), t: at - a };
  });
}

// Marching squares: where the outline of each square of four pixel centres goes, in
// half pixels, with the inside on its right. The index is the sum of 1, 2, 4, 8 for
// upper left, upper right, lower left, lower right inside. Pixels that touch at a
// corner are joined.
const [UP, LEFT, RIGHT, DOWN] = [[1, 0], [0, 1], [2, 1], [1, 2]];
const STEPS = [
  [], [[UP, LEFT]], [[RIGHT, UP]], [[RIGHT, LEFT]],
  [[LEFT, DOWN]], [[UP, DOWN]], [[LEFT, UP], [RIGHT, DOWN]], [[RIGHT, DOWN]],
  [[DOWN, RIGHT]], [[UP, RIGHT], [DOWN, LEFT]], [[DOWN, UP]], [[DOWN, LEFT]],
  [[LEFT, RIGHT]], [[UP, RIGHT]], [[LEFT, UP]], [],
];

/** Closed rings [[x, y], ...] around the islands and holes of a mask. */
export function traceRings(mask, width, height) {
  const at = (x, y) =>
    x >= 0 && y >= 0 && x < width && y < height ? mask[y * width + x] : 0;
  const span = 2 * width + 4;
  const next = new Map();
  for (let y = -1; y < height; y++) {
    for (let x = -1; x < width; x++) {
      const kind =
        at(x, y) + 2 * at(x + 1, y) + 4 * at(x, y + 1) + 8 * at(x + 1, y + 1);
      for (const [from, to] of STEPS[kind]) {
        const code = ([h, v]) => (2 * y + v + 2) * span + 2 * x + h + 2;
        next.set(code(from), code(to));
      }
    }
  }
  const rings = [];
  while (next.size) {
    const ring = [];
    let code = next.keys().next().value;
    while (next.has(code)) {
      ring.push([(code % span) / 2 - 1, Math.floor(code / span) / 2 - 1]);
      const after = next.get(code);
      next.delete(code);
      code = after;
    }
    rings.push([...ring, ring[0]]);
  }
  return rings;
}

/**
 * One polygon of a mask: the island under a point, or else the largest, with its holes.
 *
 * Gives its rings, the outer one first, simplified; empty for an empty mask.
 */
export function polygonAt(mask, width, height, point) {
  const rings = traceRings(mask, width, height);
  const islands = rings.filter((ring) => area(ring) > 0);
  const holes = rings.filter((ring) => area(ring) < 0);
  if (!islands.length) return [];
  islands.sort((a, b) => area(b) - area(a));
  const hit = point && islands.filter((ring) => contains(ring, point)).pop();
  const outer = hit || islands[0];
  const smaller = islands.filter((ring) => ring !== outer && contains(outer, ring[0]));
  const inner = holes.filter(
    (hole) =>
      contains(outer, hole[0]) && !smaller.some((ring) => contains(ring, hole[0])),
  );
  return [outer, ...inner].map(simplify).filter((ring) => ring.length > 3);
}

/** Twice the area, positive for islands. */
function area(ring) {
  let sum = 0;
  for (let i = 1; i < ring.length; i++) {
    sum += ring[i - 1][0] * ring[i][1] - ring[i][0] * ring[i - 1][1];
  }
  return sum;
}

function contains(ring, [x, y]) {
  let inside = false;
  for (let i = 1; i < ring.length; i++) {
    const [[x0, y0], [x1, y1]] = [ring[i - 1], ring[i]];
    if (y0 > y !== y1 > y && x < x0 + ((x1 - x0) * (y - y0)) / (y1 - y0)) {
      inside = !inside;
    }
  }
  return inside;
}

/** Ramer, Douglas and Peucker: leave out what is close to the line between others. */
function simplify(ring) {
  const keep = new Set([0, ring.length - 1]);
  const open = [[0, ring.length - 1]];
  while (open.length) {
    const [first, last] = open.pop();
    let far = 0;
    let place = 0;
    for (let i = first + 1; i < last; i++) {
      const gap = distance(ring[i], ring[first], ring[last]);
      if (gap > far) [far, place] = [gap, i];
    }
    if (far > TOLERANCE) {
      keep.add(place);
      open.push([first, place], [place, last]);
    }
  }
  return [...keep].sort((a, b) => a - b).map((i) => ring[i]);
}

function distance([x, y], [x0, y0], [x1, y1]) {
  const [dx, dy] = [x1 - x0, y1 - y0];
  const length = dx * dx + dy * dy;
  const along = length ? ((x - x0) * dx + (y - y0) * dy) / length : 0;
  const t = Math.min(1, Math.max(0, along));
  return Math.hypot(x - x0 - t * dx, y - y0 - t * dy);
}

/** Objects [{rings, score}] as the text of a GeoJSON file that QuPath reads as well. */
export function toGeoJSON(objects, model) {
  const shifted = (ring) => ring.map((place) => place.map((value) => value + CORNER));
  const features = objects.map(({ rings, score }) => ({
    type: "Feature",
    id: randomId(),
    geometry: { type: "Polygon", coordinates: rings.map(shifted) },
    properties: {
      objectType: "detection",
      measurements: { score },
      metadata: { model },
    },
  }));
  const ours = { version: 1, offset: CORNER };
  const file = { type: "FeatureCollection", napari_sam_suite: ours, features };
  return JSON.stringify(file, null, 1);
}

/** A UUID; crypto.randomUUID is only where the page is encrypted or of this machine. */
function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
