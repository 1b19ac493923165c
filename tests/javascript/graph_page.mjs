// node graph_page.mjs FOLDER ACTIONS.json: opens pages of a folder and does what a reader would.
//
// ACTIONS.json is a list of ["open", path], ["click", selector], ["key", name], ["type", text],
// ["size", width, height], ["read", expression], ["frame", expression], which is read in the first
// frame, and ["picture", file].
// Prints what was read, and what the browser complained about or asked the network for.

import { readFileSync } from "node:fs";
import { launch, serve } from "./browser.mjs";

const [folder, list] = process.argv.slice(2);
const actions = JSON.parse(readFileSync(list, "utf8"));
const server = await serve({ "/": folder });
const browser = await launch();
const [found, complaints, requests] = [[], [], []];

const settled = (page) =>
  page.evaluate(() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 30))));

const DO = {
  open: async (page, path) => {
    await page.goto(`${server.address}/${path}`);
    await page.waitForFunction(() => document.body.dataset.ready, { timeout: 60_000 });
  },
  click: (page, selector) => page.click(selector),
  key: (page, name) => page.keyboard.press(name),
  type: (page, text) => page.keyboard.type(text),
  size: (page, width, height) => page.setViewport({ width, height }),
  read: async (page, expression) => found.push(await page.evaluate(expression)),
  frame: async (page, expression) => {
    const frame = page.frames()[1];
    await frame.waitForFunction(() => document.body.dataset.ready);
    found.push(await frame.evaluate(expression));
  },
  picture: (page, path) => page.screenshot({ path }),
};

try {
  const page = await browser.newPage();
  await page.setViewport({ width: 1280, height: 800 });
  page.on("pageerror", (error) => complaints.push(error.stack ?? String(error)));
  page.on("console", (line) => line.type() === "error" && complaints.push(line.text()));
  page.on("request", (one) => one.isNavigationRequest() || requests.push(one.url()));
  for (const [name, ...rest] of actions) {
    await DO[name](page, ...rest);
    await settled(page);
  }
  console.log(JSON.stringify({ found, complaints, requests }));
} finally {
  await browser.close();
  server.close();
}
