// Masks lean towards what the model's guide says of the object that was meant, as in
// the engine's guidance.py, whose numbers these are.

const STRIDE = 4; // pixels of the model's input in a place of the guide's maps
const UNIT = 8; // places in the unit of its ways and sizes
const STRENGTH = 3;
const REACH = 0.7;
const MOST_AGAINST = 3;
const INSIDE = 0.5;
const SURE = 4;
const CLICK = 5;
const AROUND = 0.15;
const BOXED = 0.6;
const TELLING = 0.35;
const LEAST_TOLD = 1e-3;
const COST = 0.02;
const SIZE = 0.2;
const FILLED = 0.88;
const MARGIN = 1;
const NEVER = -20;
const RATING = [0.36, 1.7, 0.586, -0.854, -0.69];
const FAR = 3;
const LEVEL = { most: 3, step: 0.25, likely: 1 };

/**
 * Logits (low x low) that lean towards the object of some prompts.
 *
 * guide: five maps, one after the other; points: [{x, y, label}] in pixels of the
 * model's input, as `Model.decode` has them; perPixel: places in a pixel of the image.
 */
export function lean(logits, guide, low, points, perPixel) {
  const count = low * low;
  // half a pixel of the image, not of the input: points are scaled without it
  const at = points.map(({ x, y, label }) => ({
    x: x / STRIDE + perPixel.x / 2 - 0.5,
    y: y / STRIDE + perPixel.y / 2 - 0.5,
    label,
  }));
  const corners = at.filter(({ label }) => label > 1);
  const clicks = at.filter(({ label }) => label === 0 || label === 1);
  const inside = clicks.filter(({ label }) => label === 1);
  if (!corners.length && !inside.length) return logits;
  const box = corners.length ? boxOf(corners) : null;
  const meant = box
    ? [told(box, perPixel, guide, low)]
    : inside.map((point) => named(point, guide, low));
  const size = meant.reduce((sum, one) => sum + one.size, 0) / meant.length;
  const marks = box || clicks.length > 1 ? clicks : [];
  const part = box ? BOXED : 1;
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
    leaned[i] = logits[i] + part * STRENGTH * near + anyhow + fence;
  }
  const level = box ? 0 : siding(leaned, marks, low);
  for (let i = 0; i < count; i++) {
    const [x, y] = [i % low, Math.floor(i / low)];
    leaned[i] -= level;
    for (const mark of marks) {
      const squares = (y - mark.y) ** 2 + (x - mark.x) ** 2;
      const bump = CLICK * Math.exp(-squares / (2 * (AROUND * size) ** 2));
      leaned[i] += mark.label ? bump : -bump;
    }
  }
  if (!box) return leaned;
  const cut = filling(leaned, low, box, perPixel, meant[0].area);
  return leaned.map((value) => value - cut);
}

/** The mean of all answers [{logits, score}] to one click, each as much as it is worth. */
export function blend(answers) {
  const total = answers.reduce((sum, { score }) => sum + score, 0) || 1;
  const logits = new Float32Array(answers[0].logits.length);
  for (const one of answers) {
    const worth = one.score / total;
    for (let i = 0; i < logits.length; i++) logits[i] += worth * one.logits[i];
  }
  const score = answers.reduce((sum, { score }) => sum + score ** 2 / total, 0);
  return { logits, score };
}

/** The level that has clicks on their right sides; as in the engine's clicked.py. */
function siding(logits, marks, low) {
  if (!marks.length) return 0;
  const { most, step, likely } = LEVEL;
  let [best, found] = [Infinity, 0];
  for (let level = -most; level <= most; level += step) {
    let cost = level ** 2 / (2 * likely ** 2);
    for (const mark of marks) {
      const off = logits[placeOf(mark, low)] - level;
      cost += Math.log1p(Math.exp(mark.label ? -off : off));
    }
    if (cost < best) [best, found] = [cost, level];
  }
  return found;
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
  const estimate = n ? Math.min(0.999, Math.max(0.001, score)) : 0.001;
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

/** The middle and the size of the object in a box, as the box and the guide tell. */
function told(box, perPixel, guide, low) {
  const count = low * low;
  const tall = Math.max(1, box.high.y - box.low.y + perPixel.y);
  const wide = Math.max(1, box.high.x - box.low.x + perPixel.x);
  const side = Math.sqrt(tall * wide);
  const middle = {
    y: (box.low.y + box.high.y) / 2,
    x: (box.low.x + box.high.x) / 2,
    size: FILLED * side,
    area: (FILLED * side) ** 2,
  };
  let [total, sy, sx, ss] = [0, 0, 0, 0];
  for (let i = 0; i < count; i++) {
    const [column, row] = [i % low, Math.floor(i / low)];
    if (outside(box, column, row)) continue;
    const y = row + UNIT * guide[2 * count + i];
    const x = column + UNIT * guide[3 * count + i];
    const off = Math.hypot(y - middle.y, x - middle.x) / (TELLING * side);
    const weight = Math.exp(-(off ** 2) / 2) / (1 + Math.exp(-guide[i]));
    total += weight;
    sy += weight * y;
    sx += weight * x;
    ss += weight * guide[4 * count + i];
  }
  if (total < LEAST_TOLD) return middle;
  const alone = UNIT * Math.exp(ss / total);
  return {
    y: (middle.y + sy / total) / 2,
    x: (middle.x + sx / total) / 2,
    size: Math.sqrt(middle.size * alone),
    area: alone ** 2,
  };
}

/** The level above which logits fill a box best; as in the engine's extent.py. */
function filling(logits, low, box, perPixel, expected) {
  const rows = new Float32Array(low).fill(-Infinity);
  const columns = new Float32Array(low).fill(-Infinity);
  for (let i = 0; i < logits.length; i++) {
    const [column, row] = [i % low, Math.floor(i / low)];
    rows[row] = Math.max(rows[row], logits[i]);
    columns[column] = Math.max(columns[column], logits[i]);
  }
  const wanted = [
    [box.low.y - perPixel.y / 2, box.high.y + perPixel.y / 2],
    [box.low.x - perPixel.x / 2, box.high.x + perPixel.x / 2],
  ];
  const area = (sides) => sides.reduce((all, [from, to]) => all * (to - from), 1);
  let [best, found] = [-Infinity, 0];
  for (let level = -3; level <= 4; level += 0.5) {
    const reached = [ends(rows, level), ends(columns, level)];
    if (!reached[0] || !reached[1]) continue;
    const common = reached.map(([from, to], axis) => [
      0,
      Math.max(0, Math.min(to, wanted[axis][1]) - Math.max(from, wanted[axis][0])),
    ]);
    const shared = area(common);
    const union = Math.max(1e-9, area(reached) + area(wanted) - shared);
    const places = logits.reduce((n, value) => n + (value > level), 0);
    const off = Math.abs(Math.log(Math.max(1, places) / Math.max(1, expected)));
    const value = shared / union - COST * Math.abs(level) - SIZE * Math.min(off, 1);
    if (value > best) [best, found] = [value, level];
  }
  return found;
}

/** Where a line of logits rises above a level and where it falls below, if ever. */
function ends(profile, level) {
  const first = profile.findIndex((value) => value > level);
  if (first < 0) return null;
  const last = profile.findLastIndex((value) => value > level);
  const part = (i, next) => (profile[i] - level) / (profile[i] - profile[next]);
  return [
    first > 0 ? first - part(first, first - 1) : -0.5,
    last < profile.length - 1 ? last + part(last, last + 1) : profile.length - 0.5,
  ];
}

/** The middle that a point names, and the size of its object. */
function named(point, guide, low) {
  const count = low * low;
  const i = placeOf(point, low);
  return {
    y: Math.floor(i / low) + UNIT * guide[2 * count + i],
    x: (i % low) + UNIT * guide[3 * count + i],
    size: Math.max(2, UNIT * Math.exp(guide[4 * count + i])),
  };
}

function placeOf({ x, y }, low) {
  const [column, row] = [x, y].map((v) =>
    Math.min(low - 1, Math.max(0, Math.floor(v + 0.5))),
  );
  return row * low + column;
}

function outside({ low, high }, x, y) {
  const across = x < low.x - MARGIN || x > high.x + MARGIN;
  return across || y < low.y - MARGIN || y > high.y + MARGIN;
}
