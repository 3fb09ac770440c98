// The exported encoder and decoder on onnxruntime-web.

import { blend, lean, rate } from "./guidance.js";

const LIBRARY = "ort.wasm.min.mjs";
const MOST_THREADS = 4;

/** An error whose message is a sentence for the person in front of the screen. */
export class Told extends Error {}

/** Load model.json and the files that it names; `say` is told what is being done. */
export async function loadModel(say) {
  requireBrowser();
  const card = await readCard();
  const ort = await loadRuntime();
  const sessions = {};
  for (const [part, file] of Object.entries(card.files)) {
    say(`Loading ${file}.`);
    sessions[part] = await openSession(ort, file, card.data);
  }
  return new Model(ort, card, sessions);
}

function requireBrowser() {
  // the smallest module with a SIMD instruction
  const simd = [
    0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0,
    65, 0, 253, 15, 253, 98, 11,
  ];
  const able =
    typeof WebAssembly === "object" &&
    typeof OffscreenCanvas === "function" &&
    WebAssembly.validate(new Uint8Array(simd));
  if (!able) {
    throw new Told(
      "This browser cannot compute fast enough (WebAssembly with SIMD): use Chrome, " +
        "Edge, Firefox or Safari of 2023 or later.",
    );
  }
}

async function readCard() {
  try {
    const answer = await fetch("model.json");
    if (answer.ok) return await answer.json();
  } catch {
    // told below, with everything else that may be wrong
  }
  throw new Told(
    "There is no model beside this page: export it again with napari-sam-suite " +
      "export-onnx, and open the page with --serve.",
  );
}

async function loadRuntime() {
  const folder = new URL("ort/", import.meta.url).href;
  let ort;
  try {
    ort = await import(folder + LIBRARY);
  } catch {
    throw new Told(
      "onnxruntime-web is missing in the folder ort beside this page: export the " +
        "model again with npm installed, or with --runtime.",
    );
  }
  ort.env.wasm.wasmPaths = folder;
  const threads = Math.min(MOST_THREADS, navigator.hardwareConcurrency || 1);
  ort.env.wasm.numThreads = self.crossOriginIsolated ? threads : 1;
  return ort;
}

async function openSession(ort, file, data) {
  try {
    const answer = await fetch(file);
    if (!answer.ok) throw new Error(answer.statusText);
    const options = { executionProviders: ["wasm"] };
    options.externalData = data
      .filter((name) => name.startsWith(`${file}.`))
      .map((name) => ({ path: name, data: new URL(name, import.meta.url).href }));
    return await ort.InferenceSession.create(await answer.arrayBuffer(), options);
  } catch (error) {
    throw new Told(
      `${file} cannot be loaded (${String(error.message || error).slice(0, 120)}): ` +
        "export the model again.",
    );
  }
}

class Model {
  constructor(ort, card, sessions) {
    Object.assign(this, { ort, card, sessions });
    this.padded = card.resize !== "stretch";
    this.low = card.input_size / 4;
  }

  /** Embed planes (1, 3, side, side); gives tensors by their names. */
  async encode(planes) {
    const side = this.card.input_size;
    const session = this.sessions.encoder;
    const image = this.tensor(planes, [1, 3, side, side]);
    return await session.run({ [session.inputNames[0]]: image });
  }

  /**
   * Draw the best mask for the prompts of one object.
   *
   * points: [{x, y, label}] in pixels of the model's input; 1 inside, 0 outside, 2 and
   * 3 the corners of a box, -1 no point. shape and filled: height and width of the
   * picture and of its part of the input. Gives {logits, score}, low x low.
   */
  async decode(embedding, points, shape, filled) {
    const real = points.filter((point) => point.label >= 0);
    const clear = real.length !== 1 || real[0].label !== 1;
    const feed = this.feed(embedding, points, shape);
    const guide = embedding.guide?.data;
    const drawn = [];
    if (clear || guide) drawn.push(...(await this.draw("decoder_single", feed, [0])));
    if (!clear) drawn.push(...(await this.draw("decoder", feed, [1, 2, 3])));
    if (!guide) return drawn.reduce((a, b) => (b.score > a.score ? b : a));
    const [y, x] = filled.map((n, i) => n / shape[i] / 4);
    const leaning = drawn.map(({ logits, score }) => {
      const leaned = lean(logits, guide, this.low, points, { y, x });
      return { logits: leaned, score: rate(leaned, score, guide, this.low) };
    });
    return clear ? leaning[0] : blend(leaning);
  }

  /** Some of the masks [{logits, score}]; all there are, if it is only one. */
  async draw(part, feed, tokens) {
    const session = this.sessions[part] ?? this.sessions.decoder;
    // an encoder may say more than decoders take
    const taken = session.inputNames.map((name) => [name, feed[name]]);
    const found = await session.run(Object.fromEntries(taken));
    const masks = found.low_res_masks ?? found.masks;
    const scores = Array.from(found.iou_predictions.data);
    const size = this.low * this.low;
    if (masks.data.length !== scores.length * size) {
      throw new Told("The decoder's masks are not those of model.json: export again.");
    }
    const all = scores.map((score, i) => ({
      logits: masks.data.subarray(i * size, (i + 1) * size),
      score,
    }));
    return all.length === 4 ? tokens.map((token) => all[token]) : all;
  }

  feed(embedding, points, shape) {
    const count = points.length;
    const places = points.flatMap(({ x, y }) => [x, y]);
    const labels = points.map(({ label }) => label);
    const feed = {
      ...embedding,
      point_coords: this.tensor(places, [1, count, 2]),
      point_labels: this.tensor(labels, [1, count]),
      mask_input: this.tensor(this.low * this.low, [1, 1, this.low, this.low]),
      has_mask_input: this.tensor([0], [1]),
    };
    if (this.padded) feed.orig_im_size = this.tensor(shape, [2]);
    return feed;
  }

  tensor(values, shape) {
    return new this.ort.Tensor("float32", new Float32Array(values), shape);
  }
}
