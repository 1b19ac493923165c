// Graphs of the document: nodes with what they read, in a tree of boxes by module.

import { grouped } from "./repeats.js";

const KINDS = { placeholder: "input", output: "output", get_attr: "tensor", call_function: "call" };
const FLAT = 120; // more children of one box are put into boxes of 100

/** Return the graphs of a document, made when they are first asked for. */
export function decode(document) {
  const text = (number) => document.strings[number];
  const records = document.records.map((record) => {
    const [kind, name, op, call, type, where, part, operator, source] = record.slice(0, 9).map(text);
    const [inputs, weights] = record.slice(9).map((list) => list.map(text));
    return { kind: KINDS[kind], name, op, call, type, where, part, operator, source, inputs, weights };
  });
  const made = [];
  return {
    ...document,
    operators: [...new Set(document.graphs.flatMap((graph) => graph.insertions.map((one) => one[2])))],
    graph: (index) => (made[index] ??= graphOf(document.graphs[index], records, text)),
  };
}

function graphOf(data, records, text) {
  const nodes = data.nodes.map((number, index) => ({
    id: records[number].name,
    record: records[number],
    depends: text(data.depends[index]),
    index,
    users: [],
    inputs: [],
    interfaces: [],
    isNode: true,
  }));
  const byName = new Map(nodes.map((node) => [node.id, node]));
  for (const node of nodes) {
    node.inputs = node.record.inputs.map((name) => byName.get(name)).filter(Boolean);
    for (const source of node.inputs) source.users.push(node);
  }
  const interfaces = data.interfaces.map(([key, kind, type, node, uses, aliases, module]) => {
    const found = { key, kind, type, node: byName.get(node), uses, aliases, module };
    found.node?.interfaces.push(found);
    return found;
  });
  numbered(nodes);
  const classes = new Map();
  for (const { key, module } of interfaces) {
    const path = key.slice(0, key.lastIndexOf(":"));
    if (module) classes.set(path, module.slice(module.lastIndexOf(".") + 1));
  }
  const insertedAt = new Map();
  for (const [, part, , at] of data.insertions) insertedAt.set(part, at.slice(0, at.lastIndexOf(":")).split(".").slice(0, -1));
  const root = treeOf(nodes, classes, insertedAt);
  const boxes = new Map();
  prepare(root, boxes);
  connect(nodes);
  return { ...data, nodes, byName, interfaces, root, boxes };
}

/** Give operations the numbers that the printed graph has. */
function numbered(nodes) {
  const counts = new Map();
  for (const node of nodes) {
    const { kind, part, op } = node.record;
    if (kind !== "call") {
      node.printed = kind === "input" ? `%${op}` : "";
      continue;
    }
    const number = counts.get(part) ?? 0;
    counts.set(part, number + 1);
    node.printed = part ? `%${part}.${number}` : `%${number}`;
  }
}

/** Boxes of modules: consecutive nodes with a path in common, so that boxes have no cycles. */
function treeOf(nodes, classes, insertedAt) {
  const root = newBox("", "", "module");
  const stack = [root];
  const seen = new Map();
  const paths = placed(nodes, insertedAt);
  nodes.forEach((node, index) => {
    const path = paths[index];
    let depth = 0;
    while (depth < path.length && stack[depth + 1]?.name === path[depth]) depth += 1;
    stack.length = depth + 1;
    for (const name of path.slice(depth)) {
      const above = stack[stack.length - 1];
      const full = above.path ? `${above.path}.${name}` : name;
      const count = (seen.get(full) ?? 0) + 1;
      seen.set(full, count);
      const box = newBox(count > 1 ? `${full}~${count}` : full, name, node.record.part ? "part" : "module");
      Object.assign(box, { path: full, module: classes.get(full) ?? "" });
      if (count > 1) box.again = count;
      above.children.push(box);
      stack.push(box);
    }
    stack[stack.length - 1].children.push(node);
  });
  return root;
}

/** Path of every node; a program's nodes are inside the module around their interface. */
function placed(nodes, insertedAt) {
  const own = nodes.map(({ record }) =>
    record.part ? null : record.where && record.kind === "call" ? record.where.split(".") : [],
  );
  const next = new Array(nodes.length);
  for (let index = nodes.length - 1, path = []; index >= 0; index -= 1) {
    if (own[index]) path = own[index];
    next[index] = path;
  }
  let before = [];
  return own.map((path, index) => {
    if (path) return (before = path);
    const { part } = nodes[index].record;
    const wanted = insertedAt.get(part) ?? [];
    const choices = [common(before, next[index]), common(before, wanted), common(next[index], wanted)];
    return [...choices.reduce((one, other) => (other.length > one.length ? other : one)), part];
  });
}

function common(one, other) {
  let length = 0;
  while (length < one.length && one[length] === other[length]) length += 1;
  return one.slice(0, length);
}

export function newBox(id, name, kind) {
  return { id, name, kind, path: "", label: name, children: [], module: "", isNode: false };
}

/** Fold repeats, merge chains of boxes, limit the children of a box; set parents and counts. */
function prepare(root, boxes) {
  const visit = (box) => {
    box.children = box.children.map((child) => (child.isNode ? child : visit(child)));
    box.children = limited(grouped(box.children, box), box);
    for (const child of box.children) if (child.kind === "repeat") child.children = limited(child.children, child);
    const [only] = box.children;
    if (box === root || box.children.length > 1) return box;
    if (only.isNode) {
      if (box.kind !== "part") only.name = box.label;
      return box.kind === "part" ? box : only;
    }
    only.label = `${box.label}.${only.label}`;
    return only;
  };
  visit(root);
  const finish = (box, depth) => {
    Object.assign(box, { depth, edges: new Map(), ins: new Map(), outs: new Map(), size: 0 });
    boxes.set(box.id, box);
    for (const child of box.children) {
      child.parent = box;
      if (child.isNode) child.depth = depth + 1;
      else finish(child, depth + 1);
      box.size += child.isNode ? 1 : child.size;
    }
  };
  finish(root, 0);
}

function limited(children, box) {
  if (children.length <= FLAT) return children;
  const width = 100 ** Math.floor(Math.log(children.length - 1) / Math.log(100));
  const chunks = [];
  for (let start = 0; start < children.length; start += width) {
    const part = children.slice(start, start + width);
    const chunk = newBox(`${box.id}#${start}`, `parts ${start}–${start + part.length - 1}`, "chunk");
    chunk.path = box.path;
    chunk.children = limited(part, chunk);
    chunks.push(chunk);
  }
  return chunks;
}

/** Put every edge where it is drawn: between siblings, and from and to the border of a box. */
function connect(nodes) {
  const add = (map, key, value) => {
    const found = map.get(key);
    if (found) found.add(value);
    else map.set(key, new Set([value]));
  };
  for (const target of nodes) {
    for (const source of target.inputs) {
      let [one, other] = [source, target];
      while (one.parent !== other.parent) {
        if (one.parent.depth >= other.parent.depth) {
          add(one.parent.outs, one, source);
          one = one.parent;
        } else {
          add(other.parent.ins, other, source);
          other = other.parent;
        }
      }
      const edges = one.parent.edges;
      if (!edges.has(one)) edges.set(one, new Map());
      add(edges.get(one), other, source);
    }
  }
}

/** The boxes around something, from the inside out, without the whole graph. */
export function around(item) {
  const found = [];
  for (let box = item.parent; box?.parent; box = box.parent) found.push(box);
  return found;
}

/** Boxes that are open at first: those that show a few dozen things; repeats stay folded. */
export function openAtFirst(graph) {
  const open = new Set();
  let waiting = graph.root.children.filter((child) => !child.isNode);
  let shown = graph.root.children.length;
  while (waiting.length) {
    waiting.sort((one, other) => other.size - one.size);
    const box = waiting.find(({ kind, children }) => kind !== "repeat" && shown + children.length <= 36);
    if (!box) break;
    waiting = [...waiting.filter((one) => one !== box), ...box.children.filter((child) => !child.isNode)];
    shown += box.children.length;
    open.add(box.id);
  }
  return open;
}

/** How the nodes of one graph differ from those of another: new, changed, shape or same. */
export function changes(graph, other, missing) {
  const found = new Map();
  for (const node of graph.nodes) {
    const old = other.byName.get(node.id)?.record;
    if (!old) found.set(node.id, missing);
    else if (old !== node.record) {
      const same = old.call === node.record.call && old.op === node.record.op;
      const inputs = String(old.inputs) === String(node.record.inputs);
      if (!same || !inputs) found.set(node.id, "changed");
      else if (old.type !== node.record.type) found.set(node.id, "shape");
    }
  }
  return found;
}

/** Nodes whose names, operations, modules or interfaces hold a text; interfaces come first. */
export function search(graph, text) {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return [];
  const found = new Map();
  const offer = (node, label, kind) => node && !found.has(node) && found.set(node, { node, label, kind });
  const has = (name) => name.toLowerCase().includes(wanted);
  for (const { key, aliases, node } of graph.interfaces) {
    const name = [...aliases, key].find(has);
    if (name) offer(node, name, "interface");
  }
  for (const node of graph.nodes) {
    const { where, op, part, operator, name } = node.record;
    if (has(name) || node.printed === wanted) offer(node, name, op);
    else if (part && (has(part) || has(operator))) offer(node, `${part}: ${op}`, "program");
    else if (has(where)) offer(node, where, op);
    else if (has(op)) offer(node, name, op);
  }
  return [...found.values()];
}
