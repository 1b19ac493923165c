import * as ort from "./ort/ort.wasm.bundle.min.mjs";
import { CELLS, sheet } from "./drawing.js";
import { readProgram } from "./program.js";

const $ = (id) => document.getElementById(id);
const state = { session: null, programs: [], chosen: null, busy: false, stale: false };
ort.env.wasm.numThreads = 1; // more need headers that a plain file server does not send

async function bytes(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path} is not there: write the page with run.py`);
  return response.arrayBuffer();
}

async function start() {
  const [model, list] = await Promise.all([bytes("model.onnx"), bytes("programs.json")]);
  state.session = await ort.InferenceSession.create(model);
  state.programs = await Promise.all(
    JSON.parse(new TextDecoder().decode(list)).map(async (entry) => {
      const file = await bytes(`${entry.name}.safetensors`);
      const tensors = readProgram(ort, file, state.session.inputNames);
      return { ...entry, tensors, size: file.byteLength };
    }),
  );
  $("size").textContent = Math.round(state.programs[0].size / 1000);
  $("programs").replaceChildren(...state.programs.map(button));
  state.sheet = sheet($("drawing"), read);
  $("clear").addEventListener("click", () => state.sheet.clear());
  choose(state.programs[0]);
  const megabytes = (model.byteLength / 1e6).toFixed(1);
  $("status").textContent = `Model of ${megabytes} MB loaded. Draw something.`;
  document.body.dataset.ready = "true";
}

function button(program) {
  const made = document.createElement("button");
  made.type = "button";
  made.role = "radio";
  made.textContent = program.name;
  made.addEventListener("click", () => choose(program));
  return made;
}

function choose(program) {
  state.chosen = program;
  [...$("programs").children].forEach((made, index) =>
    made.setAttribute("aria-checked", String(state.programs[index] === program)),
  );
  $("question").textContent = program.question;
  showPattern(program.tensors["program.pattern.value"]);
  read();
}

/** Read the drawing, again where it changed meanwhile. */
async function read() {
  state.stale = true;
  if (state.busy) return;
  state.busy = true;
  try {
    while (state.stale) {
      state.stale = false;
      await answer(state.sheet?.cells() ?? null, state.chosen);
    }
  } catch (error) {
    failed(error);
  } finally {
    state.busy = false;
  }
}

async function answer(ink, program) {
  showCells(ink);
  if (!ink) return show(program, null);
  const [input] = state.session.inputNames.filter((name) => !name.startsWith("program."));
  const picture = new ort.Tensor("float32", ink.map((value) => 1 - value), [1, 1, CELLS, CELLS]);
  const began = performance.now();
  const found = await state.session.run({ [input]: picture, ...program.tensors });
  const taken = performance.now() - began;
  const [scores] = Object.values(found);
  show(program, softmax(Array.from(scores.data)));
  $("status").textContent = `Answered in ${taken.toFixed(1)} ms, in this browser.`;
}

function softmax(logits) {
  const largest = Math.max(...logits);
  const weights = logits.map((value) => Math.exp(value - largest));
  const sum = weights.reduce((a, b) => a + b);
  return weights.map((value) => value / sum);
}

function show(program, shares) {
  const best = shares && shares.indexOf(Math.max(...shares));
  $("answer").textContent = shares ? program.labels[best] : "";
  $("scores").replaceChildren(
    ...program.labels.map((label, index) => {
      const row = document.createElement("li");
      const [name, bar, number] = ["span", "i", "b"].map((tag) => document.createElement(tag));
      const share = shares ? shares[index] : 0;
      name.textContent = label;
      bar.style.width = `${100 * share}%`;
      number.textContent = shares ? `${Math.round(100 * share)} %` : "";
      row.append(name, bar, number);
      return row;
    }),
  );
}

function showCells(ink) {
  const image = new ImageData(CELLS, CELLS);
  for (let i = 0; i < CELLS * CELLS; i++) {
    image.data.set(Array(3).fill(255 * (1 - (ink ? ink[i] : 0))).concat(255), 4 * i);
  }
  $("seen").getContext("2d").putImageData(image, 0, 0);
}

/** The learned pattern [3, H, W], brightened to be visible. */
function showPattern(tensor) {
  const [, height, width] = tensor.dims;
  const largest = tensor.data.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-9);
  const image = new ImageData(width, height);
  for (let i = 0; i < height * width; i++) {
    for (let c = 0; c < 3; c++) {
      image.data[4 * i + c] = 128 + (127 * tensor.data[c * height * width + i]) / largest;
    }
    image.data[4 * i + 3] = 255;
  }
  Object.assign($("pattern"), { width, height }).getContext("2d").putImageData(image, 0, 0);
}

function failed(error) {
  $("status").textContent = `It does not work here: ${error.message}`;
  console.error(error);
}

start().catch(failed);
