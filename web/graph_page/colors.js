// Colors of nodes, and which colors a box holds.

const HUES = ["#d9480f", "#1971c2", "#2f9e44", "#9c36b5", "#e03131", "#0c8599", "#e67700", "#5f3dc4", "#a61e4d", "#5c940d"];
const DEPENDS = [
  ["random numbers", "#868e96"],
  ["batch-mates", "#e03131"],
  ["program + samples", "#9c36b5"],
  ["program", "#e8590c"],
  ["samples", "#2f9e44"],
  ["weights", "#1971c2"],
];
const CHANGES = { new: "#2f9e44", gone: "#e03131", changed: "#e67700", shape: "#1971c2" };
const WORDS = { new: "new here", gone: "not in the other", changed: "changed", shape: "only the type differs" };
const MEANING = {
  weights: "constant: weights alone",
  program: "the program",
  samples: "samples",
  "program + samples": "program and samples",
  "batch-mates": "perhaps other rows of the batch",
  "random numbers": "random numbers",
};

function dependsName(text) {
  for (const [name] of DEPENDS) if (name.split(" + ").every((word) => text.includes(word))) return name;
  return null;
}

/** Name of a node's color in a mode, or null. */
export function colorName(node, mode, marks) {
  if (mode === "depends") return dependsName(node.depends);
  if (mode === "changes") return marks?.get(node.id) ?? null;
  return node.record.operator || null;
}

export function palette(document, mode) {
  if (mode === "depends") return new Map(DEPENDS);
  if (mode === "changes") return new Map(Object.entries(CHANGES));
  const names = new Set(document.operators);
  return new Map([...names].map((name, index) => [name, HUES[index % HUES.length]]));
}

export const meaning = (name, mode) => (mode === "depends" ? MEANING : mode === "changes" ? WORDS : {})[name] ?? name;

/** How many nodes of each color a box holds; kept until the mode or the comparison changes. */
export function counts(box, mode, marks) {
  if (box.counted?.mode === mode && box.counted.marks === marks) return box.counted.found;
  const found = new Map();
  const add = (name, number) => name && found.set(name, (found.get(name) ?? 0) + number);
  for (const child of box.children) {
    if (child.isNode) add(colorName(child, mode, marks), 1);
    else for (const [name, number] of counts(child, mode, marks)) add(name, number);
  }
  box.counted = { mode, marks, found };
  return found;
}
