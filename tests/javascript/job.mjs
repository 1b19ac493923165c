// One run of a model: what both runtimes, in Node and in a browser, do with a job of the tests.

import { readProgram } from "../../examples/06_in_the_browser/page/program.js";

const ARRAYS = { float32: Float32Array, int64: BigInt64Array };

function tensor(ort, { type, dims, data }) {
  const values = type === "int64" ? data.map(BigInt) : data;
  return new ort.Tensor(type, ARRAYS[type].from(values), dims);
}

/**
 * @param job {model, programs: [bytes or null, ...], inputs: {name: {type, dims, data}}}
 * @returns for each program the outputs by name, {dims, data}; or {error}
 */
export async function runJob(ort, job) {
  const session = await ort.InferenceSession.create(job.model);
  const inputs = Object.entries(job.inputs).map(([name, given]) => [name, tensor(ort, given)]);
  const results = [];
  for (const program of job.programs) {
    try {
      const feeds = Object.fromEntries(inputs);
      if (program) Object.assign(feeds, readProgram(ort, program, job.names ?? session.inputNames));
      const found = await session.run(feeds);
      results.push(
        Object.fromEntries(
          Object.entries(found).map(([name, value]) => [
            name,
            { dims: value.dims, data: Array.from(value.data, Number) },
          ]),
        ),
      );
    } catch (error) {
      results.push({ error: String(error.message ?? error) });
    }
  }
  return results;
}
