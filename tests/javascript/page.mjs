// node page.mjs FOLDER STROKES.json [PICTURE.png]: draws on the page and switches its programs.
//
// STROKES.json is a list of drawings, each a list of strokes, each a list of points of [0, 1]².
// Prints for every drawing what the model was shown, and the answer under every program.

import { readFileSync } from "node:fs";
import { launch, serve } from "./browser.mjs";

const [folder, drawings, picture] = process.argv.slice(2);
const server = await serve({ "/": folder });
const browser = await launch();
const complaints = [];

async function draw(page, box, strokes) {
  const at = ([x, y]) => [box.x + x * box.width, box.y + y * box.height];
  for (const [first, ...rest] of strokes) {
    await page.mouse.move(...at(first));
    await page.mouse.down();
    for (const point of rest) await page.mouse.move(...at(point));
    await page.mouse.up();
  }
}

async function read(page, index) {
  await page.click(`#programs button:nth-child(${index + 1})`);
  await page.waitForFunction(() => document.getElementById("answer").textContent !== "");
  await new Promise((done) => setTimeout(done, 150));
  return page.evaluate(() => ({
    program: document.querySelector("#programs [aria-checked=true]").textContent,
    answer: document.getElementById("answer").textContent,
    shares: [...document.querySelectorAll("#scores li")].map((row) => row.textContent),
    status: document.getElementById("status").textContent,
  }));
}

try {
  const page = await browser.newPage();
  await page.setViewport({ width: 800, height: 640 });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (line) => line.type() === "error" && complaints.push(line.text()));
  await page.goto(server.address);
  await page.waitForFunction(() => document.body.dataset.ready, { timeout: 60_000 });
  const programs = await page.$$eval("#programs button", (all) => all.map((b) => b.textContent));
  const results = [];
  for (const strokes of JSON.parse(readFileSync(drawings, "utf8"))) {
    await page.click("#clear");
    await draw(page, await (await page.$("#drawing")).boundingBox(), strokes);
    const answers = [];
    for (const index of programs.keys()) answers.push(await read(page, index));
    const seen = await page.evaluate(async () => {
      const { cells } = await import("./drawing.js");
      const canvas = document.getElementById("drawing");
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      const ink = Float32Array.from({ length: data.length / 4 }, (_, i) => data[4 * i + 3] / 255);
      return { cells: [...cells(ink, canvas.width, canvas.height)], ink: [...ink] };
    });
    results.push({ answers, ...seen });
  }
  if (picture) {
    await page.click("#programs button");
    await read(page, 0);
    await page.screenshot({ path: picture });
  }
  console.log(JSON.stringify({ programs, results, complaints, missing: server.missing }));
} finally {
  await browser.close();
  server.close();
}
