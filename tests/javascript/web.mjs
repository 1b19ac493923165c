// node web.mjs JOB.json: runs the job with onnxruntime-web in Chromium, and prints the results.

import { readFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { launch, serve } from "./browser.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const root = dirname(dirname(here));
const job = JSON.parse(readFileSync(process.argv[2], "utf8"));
const folder = dirname(job.model);
const server = await serve({
  "/ort/": `${here}/node_modules/onnxruntime-web/dist`,
  "/files/": folder,
  "/": root,
});
const browser = await launch();
try {
  const page = await browser.newPage();
  await page.goto(`${server.address}/tests/javascript/empty.html`);
  const results = await page.evaluate(
    async (job, model, programs) => {
      const ort = await import("/ort/ort.wasm.bundle.min.mjs");
      ort.env.wasm.numThreads = 1;
      const { runJob } = await import("/tests/javascript/job.mjs");
      const fetched = async (name) => name && (await fetch(`/files/${name}`)).arrayBuffer();
      return runJob(ort, {
        ...job,
        model: await fetched(model),
        programs: await Promise.all(programs.map(fetched)),
      });
    },
    job,
    basename(job.model),
    job.programs.map((path) => path && basename(path)),
  );
  console.log(JSON.stringify(results));
} finally {
  await browser.close();
  server.close();
}
