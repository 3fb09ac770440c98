// Masks lean towards what the model's guide says of the object that was meant, as in
// the engine's guidance.py, whose numbers these are.

const STRIDE = 4; // pixels of the model's input in a place of the guide's maps
const UNIT = 8; // places in the unit of its ways and sizes
const STRENGTH = 3;
const REACH = 0.7;
const MOST_AGAINST = 3;
const INSIDE = 0.5;
const SURE = 4;
const FILLED = 0.88;
const MARGIN = 1;
const NEVER = -20;
const RATING = [-0.693, 1.03, 3.081, -3.701, -0.245];
const FAR = 3;

/**
 * Logits (low x low) that lean towards the object of some prompts.
 *
 * guide: five maps, one after the other; points: [{x, y, label}] in pixels of the
 * model's input, as `Model.decode` has them; perPixel: places in a pixel of the image.
 */
export function lean(logits, guide, low, points, perPixel) {
  const count = low * low;
  const at = points.map(({ x, y, label }) => ({
    x: (x + 0.5) / STRIDE - 0.5,
    y: (y + 0.5) / STRIDE - 0.5,
    label,
  }));
  const corners = at.filter(({ label }) => label > 1);
  const clicks = at.filter(({ label }) => label === 1);
  if (!corners.length && !clicks.length) return logits;
  const box = corners.length ? boxOf(corners) : null;
  const meant = box ? [middleOf(box, perPixel)] : clicks.map((p) => named(p, guide, low));
  const leaned = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    const [x, y] = [i % low, Math.floor(i / low)];
    const dy = y + UNIT * guide[2 * count + i];
    const dx = x + UNIT * guide[3 * count + i];
    let near = -MOST_AGAINST;
    for (const { y: my, x: mx, size } of meant) {
      const squares = (dy - my) ** 2 + (dx - mx) ** 2;
      near = Math.max(near, 1 - squares / (REACH * size) ** 2);
    }
    const anyhow = INSIDE * Math.min(SURE, Math.max(-SURE, guide[i]));
    const fence = box && outside(box, x, y) ? NEVER : 0;
    leaned[i] = logits[i] + STRENGTH * near + anyhow + fence;
  }
  return leaned;
}

/** How good a leaning mask is, from 0 to 1; score is the model's estimate. */
export function rate(leaned, score, guide, low) {
  const count = low * low;
  let [n, sy, sx, chance, told] = [0, 0, 0, 0, 0];
  for (let i = 0; i < count; i++) {
    if (leaned[i] <= 0) continue;
    n += 1;
    sy += Math.floor(i / low);
    sx += i % low;
    chance += 1 / (1 + Math.exp(-guide[i]));
    told += guide[4 * count + i] + Math.log(UNIT);
  }
  let signs = [0, 1, FAR];
  if (n) {
    const [y, x] = [sy / n, sx / n];
    let off = 0;
    for (let i = 0; i < count; i++) {
      if (leaned[i] <= 0) continue;
      const dy = Math.floor(i / low) + UNIT * guide[2 * count + i] - y;
      const dx = (i % low) + UNIT * guide[3 * count + i] - x;
      off += Math.hypot(dy, dx);
    }
    const size = Math.min(FAR, Math.abs(Math.log(n) - (2 * told) / n));
    signs = [chance / n, off / n / Math.sqrt(n), size];
  }
  const estimate = Math.min(0.999, Math.max(0.001, score));
  const all = [1, Math.log(estimate / (1 - estimate)), ...signs];
  const sum = all.reduce((total, sign, i) => total + RATING[i] * sign, 0);
  return 1 / (1 + Math.exp(-sum));
}

function boxOf(corners) {
  const [xs, ys] = [corners.map(({ x }) => x), corners.map(({ y }) => y)];
  return {
    low: { x: Math.min(...xs), y: Math.min(...ys) },
    high: { x: Math.max(...xs), y: Math.max(...ys) },
  };
}

/** The middle and the size of an object that fills a box. */
function middleOf({ low, high }, perPixel) {
  const tall = Math.max(1, high.y - low.y + perPixel.y);
  const wide = Math.max(1, high.x - low.x + perPixel.x);
  const size = FILLED * Math.sqrt(tall * wide);
  return { y: (low.y + high.y) / 2, x: (low.x + high.x) / 2, size };
}

/** The middle that a point names, and the size of its object. */
function named({ x, y }, guide, low) {
  const count = low * low;
  const [column, row] = [x, y].map((v) =>
    Math.min(low - 1, Math.max(0, Math.floor(v + 0.5))),
  );
  const i = row * low + column;
  return {
    y: row + UNIT * guide[2 * count + i],
    x: column + UNIT * guide[3 * count + i],
    size: Math.max(2, UNIT * Math.exp(guide[4 * count + i])),
  };
}

function outside({ low, high }, x, y) {
  const across = x < low.x - MARGIN || x > high.x + MARGIN;
  return across || y < low.y - MARGIN || y > high.y + MARGIN;
}
