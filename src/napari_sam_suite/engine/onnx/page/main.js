// The page: what is clicked becomes prompts, and answers become outlines.

import { filledPart, prepare, readPicture } from "./image.js";
import { Told, loadModel } from "./model.js";
import { maskOf, polygonAt, toGeoJSON } from "./outline.js";

const LEAST_BOX = 4; // pixels on the screen from which a click is a box
const COLOURS = {
  kept: "#ff00ff",
  current: "#ffd400",
  inside: "#00e676",
  outside: "#ff1744",
};

const find = (id) => document.getElementById(id);
const canvas = find("canvas");
const context = canvas.getContext("2d");

const state = {
  model: null,
  picture: null,
  filled: null,
  embedding: null,
  prompts: [], // of the object that is being drawn: {points, click}
  current: null, // its {rings, score}
  kept: [],
  drag: null,
};
let queue = Promise.resolve();

/** Run one thing after the other: onnxruntime-web does one at a time. */
function enqueue(work) {
  queue = queue.then(work).catch(tell);
  return queue;
}

/** Do something whenever an event comes; what goes wrong is told. */
function on(target, kind, act) {
  target.addEventListener(kind, (event) => {
    try {
      act(event);
    } catch (error) {
      tell(error);
    }
  });
}

function tell(error) {
  say(error instanceof Told ? error.message : `Something failed: ${error}`, "error");
}

function say(text, kind = "ready") {
  find("status").textContent = text;
  find("status").dataset.state = kind;
  refresh();
}

function refresh() {
  find("undo").disabled = !state.prompts.length;
  find("accept").disabled = !state.current;
  find("clear").disabled = !state.kept.length && !state.prompts.length;
  find("save").disabled = !state.kept.length;
  draw();
}

async function start() {
  state.model = await loadModel((text) => say(text, "busy"));
  const { card } = state.model;
  find("title").textContent = `${card.title} in the browser`;
  find("title").title = `${card.licence || "licence unknown"}, ${card.precision}`;
  say("Open an image.");
}

async function open(file) {
  say("Reading the image.", "busy");
  try {
    state.picture = await readPicture(file);
  } catch (error) {
    if (error instanceof Told) throw error;
    throw new Told(
      `${file.name} is not an image that a browser reads: save it as PNG or JPEG.`,
    );
  }
  canvas.width = state.picture.width;
  canvas.height = state.picture.height;
  Object.assign(state, { prompts: [], current: null, kept: [], drag: null });
  await encode();
}

async function encode() {
  const { model, picture } = state;
  if (!model || !picture) return;
  state.embedding = null; // of another picture, or of this one otherwise scaled
  say("Encoding the image.", "busy");
  await new Promise((resolve) => setTimeout(resolve)); // let the browser draw that
  const began = performance.now();
  state.filled = filledPart(picture, model.card, find("convention").value);
  state.embedding = await model.encode(prepare(picture, model.card, state.filled));
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  say(`Encoded in ${seconds} s. Click on an object.`);
  if (state.prompts.length) await answer();
}

async function answer() {
  const { model, picture, filled, embedding, prompts } = state;
  state.current = null;
  if (!embedding) return refresh();
  if (prompts.length) {
    say("Drawing.", "busy");
    const points = prompts.flatMap((prompt) => prompt.points).map(toModel);
    // SAM 1 and NimbusImage add a point that is none, where there is no box
    const nimbus = find("convention").value === "aspect";
    if ((model.padded || nimbus) && !points.some(({ label }) => label > 1)) {
      points.push({ x: 0, y: 0, label: -1 });
    }
    const shape = [picture.height, picture.width];
    const { logits, score } = await model.decode(embedding, points, shape, filled);
    if (state.prompts !== prompts) return; // cleared meanwhile
    const { width, height } = picture;
    const { low, card } = model;
    const mask = maskOf(logits, low, card.input_size, filled, width, height);
    const inside = prompts.map((prompt) => prompt.click).filter(Boolean).pop();
    const rings = polygonAt(mask, width, height, inside);
    if (rings.length) state.current = { rings, score };
  }
  const found = state.current ? `Score ${state.current.score.toFixed(2)}.` : "";
  const none = prompts.length ? "Nothing is seen there." : "Click on an object.";
  say(`${found || none} ${state.kept.length} kept.`);
}

/** A point in image pixels as the model's input has it. */
function toModel({ x, y, label }) {
  const { picture, filled } = state;
  const [height, width] = filled;
  return { x: (x * width) / picture.width, y: (y * height) / picture.height, label };
}

// -- the mouse -------------------------------------------------------------------

/** Where a mouse event is, or the nearest place in the image, in pixel centres. */
function place(event) {
  const box = canvas.getBoundingClientRect();
  const x = (within(event.clientX - box.left, box.width) / box.width) * canvas.width;
  const y = (within(event.clientY - box.top, box.height) / box.height) * canvas.height;
  return { x: x - 0.5, y: y - 0.5 };
}

const within = (value, most) => Math.min(Math.max(value, 0), most);

on(canvas, "pointerdown", (event) => {
  if (!state.embedding) return;
  canvas.setPointerCapture(event.pointerId);
  state.drag = { from: event, to: event };
});

on(canvas, "pointermove", (event) => {
  if (!state.drag) return;
  state.drag.to = event;
  draw();
});

on(canvas, "pointerup", (event) => {
  if (!state.drag) return;
  const { from } = state.drag;
  state.drag = null;
  const moved = Math.hypot(event.clientX - from.clientX, event.clientY - from.clientY);
  state.prompts.push(moved < LEAST_BOX ? click(from) : box(place(from), place(event)));
  enqueue(answer);
});

on(canvas, "contextmenu", (event) => event.preventDefault());

function click(event) {
  const { x, y } = place(event);
  const outside = event.button !== 0 || event.shiftKey;
  const points = [{ x, y, label: outside ? 0 : 1 }];
  return outside ? { points } : { points, click: [x, y] };
}

/** A box cut at the outermost pixel centres, as the engine's prompt.py does. */
function box(...ends) {
  const { width, height } = state.picture;
  const xs = ends.map(({ x }) => within(x, width - 1));
  const ys = ends.map(({ y }) => within(y, height - 1));
  const first = { x: Math.min(...xs), y: Math.min(...ys), label: 2 };
  const second = { x: Math.max(...xs), y: Math.max(...ys), label: 3 };
  if (second.x - first.x < 1 || second.y - first.y < 1) {
    throw new Told(
      "The box is too small: draw it around the object; it needs a pixel or more in " +
        "both directions.",
    );
  }
  return { points: [first, second] };
}

// -- the buttons -----------------------------------------------------------------

on(find("file"), "change", (event) => {
  const [file] = event.target.files;
  if (file) enqueue(() => open(file));
  event.target.value = "";
});

on(find("convention"), "change", () => enqueue(encode));

on(find("undo"), "click", () => {
  state.prompts.pop();
  enqueue(answer);
});

on(find("accept"), "click", () => {
  if (state.current) state.kept.push(state.current);
  Object.assign(state, { prompts: [], current: null });
  say(`${state.kept.length} kept. Click on another object.`);
});

on(find("clear"), "click", () => {
  Object.assign(state, { prompts: [], current: null, kept: [] });
  say("Click on an object.");
});

on(find("save"), "click", () => {
  const text = toGeoJSON(state.kept, state.model.card.model);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/geo+json" }));
  link.download = "objects.geojson";
  link.click();
  URL.revokeObjectURL(link.href);
});

on(document, "keydown", (event) => {
  const button = { Enter: "accept", z: "undo" }[event.key];
  if (!button || event.target.closest("button, select")) return;
  find(button).click();
});

on(document, "dragover", (event) => event.preventDefault());
on(document, "drop", (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file) enqueue(() => open(file));
});

// -- what is seen ----------------------------------------------------------------

function draw() {
  const { picture, kept, current, prompts, drag } = state;
  if (!picture) return;
  context.drawImage(picture.bitmap, 0, 0);
  for (const object of kept) outline(object, COLOURS.kept);
  if (current) outline(current, COLOURS.current);
  for (const { x, y, label } of prompts.flatMap((prompt) => prompt.points)) {
    context.fillStyle = label ? COLOURS.inside : COLOURS.outside;
    context.beginPath();
    context.arc(x + 0.5, y + 0.5, 3, 0, 2 * Math.PI);
    context.fill();
  }
  if (drag) {
    const [a, b] = [place(drag.from), place(drag.to)];
    context.strokeStyle = COLOURS.inside;
    context.strokeRect(a.x + 0.5, a.y + 0.5, b.x - a.x, b.y - a.y);
  }
}

function outline({ rings }, colour) {
  const path = new Path2D();
  for (const ring of rings) {
    ring.forEach(([x, y], i) => path[i ? "lineTo" : "moveTo"](x + 0.5, y + 0.5));
    path.closePath();
  }
  context.fillStyle = `${colour}55`;
  context.fill(path, "evenodd");
  context.strokeStyle = colour;
  context.lineWidth = 1.5;
  context.stroke(path);
}

refresh();
enqueue(start);
