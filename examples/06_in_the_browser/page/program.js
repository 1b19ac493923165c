// A saved program is a safetensors file: eight bytes that say how long the header is, the header
// as JSON, and the tensors one after another. It is all that changes when programs are switched.

const ARRAYS = {
  F32: ["float32", Float32Array],
  I64: ["int64", BigInt64Array],
  I32: ["int32", Int32Array],
  BOOL: ["bool", Uint8Array],
};

/**
 * Read a saved program.
 *
 * @param ort the module onnxruntime-web or onnxruntime-node.
 * @param {ArrayBuffer} buffer the bytes of the file.
 * @param {readonly string[]} names inputs of the session; what it does not take is left out.
 * @returns {Record<string, object>} tensors to feed beside the inputs of the model.
 * @throws {Error} where the file is no program, or has a type that is not known here.
 */
export function readProgram(ort, buffer, names) {
  const size = buffer.byteLength < 8 ? NaN : Number(new DataView(buffer).getBigUint64(0, true));
  if (!(size <= buffer.byteLength - 8)) throw new Error("not a program: the file is damaged");
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, size)));
  const feeds = {};
  for (const [name, { dtype, shape, data_offsets: offsets }] of Object.entries(header)) {
    if (!names.includes(name)) continue;
    if (!(dtype in ARRAYS)) throw new Error(`${name}: tensors of ${dtype} are not read`);
    const [type, Values] = ARRAYS[dtype];
    // a copy, because typed arrays begin at multiples of their element size
    const bytes = buffer.slice(8 + size + offsets[0], 8 + size + offsets[1]);
    feeds[name] = new ort.Tensor(type, new Values(bytes), shape);
  }
  return feeds;
}
