// node node.mjs JOB.json: runs the job with onnxruntime-node, and prints the results as JSON.

import { readFileSync } from "node:fs";
import * as ort from "onnxruntime-node";
import { runJob } from "./job.mjs";

function bytes(path) {
  const { buffer, byteOffset, byteLength } = readFileSync(path);
  return buffer.slice(byteOffset, byteOffset + byteLength);
}

const job = JSON.parse(readFileSync(process.argv[2], "utf8"));
job.programs = job.programs.map((path) => path && bytes(path));
console.log(JSON.stringify(await runJob(ort, job)));
