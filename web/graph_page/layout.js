// Positions: every open box is laid out on its own, by dagre, and kept until it changes.

import dagre from "@dagrejs/dagre";
import { around } from "./model.js";

const ROW = 38;
const HEADER = 26;
const PAD = 14;
const LETTER = 7.3;

export const shownName = (node) => {
  const { kind, op, name } = node.record;
  return kind === "call" ? op : kind === "tensor" ? op.replace(/^program\./, "") : kind === "output" ? "output" : name;
};
export const aliasOf = (node) => node.interfaces.flatMap(({ aliases }) => aliases).slice(0, 2).join(", ");
export const below = (node) => [node.name, aliasOf(node)].filter(Boolean).join(" \u00b7 ");
export const boxTitle = (box) => (box.again ? `${box.label} (${box.again})` : box.label);

const plans = new Map();
const textWidth = (...texts) => LETTER * Math.max(...texts.map((text) => text.length));

function sizeOf(item, open) {
  if (item.isNode) return { width: textWidth(shownName(item), below(item)) + 30, height: below(item) ? ROW + 8 : ROW - 6 };
  if (open.has(item.id)) return layoutOf(item, open);
  return { width: textWidth(boxTitle(item), `${item.module} ${item.size} operations`) + 40, height: ROW + 10 };
}

/** Forget the layout of boxes that change, and of what is around them. */
export function forget(box) {
  for (let one = box; one; one = one.parent) one.layout = null;
}

/** Size, places of children and lines of an open box, relative to its corner. */
export function layoutOf(box, open) {
  if (box.layout) return box.layout;
  const graph = new dagre.graphlib.Graph();
  graph.setGraph({ rankdir: "TB", nodesep: 22, ranksep: 30 });
  graph.setDefaultEdgeLabel(() => ({}));
  const items = box.children;
  const numbers = new Map(items.map((item, index) => [item, String(index)]));
  for (const item of items) {
    const { width, height } = sizeOf(item, open);
    graph.setNode(numbers.get(item), { width, height });
  }
  const lines = [];
  const link = (one, other, values, weight = 2) => {
    graph.setEdge(one, other, values ? { weight } : { weight: 0 });
    if (values) lines.push({ one, other, values: [...values] });
  };
  const [sources, targets] = [new Set(numbers.values()), new Set(numbers.values())];
  for (const [one, others] of box.edges) {
    for (const [other, values] of others) {
      link(numbers.get(one), numbers.get(other), values);
      sources.delete(numbers.get(other));
      targets.delete(numbers.get(one));
    }
  }
  ports(box, graph, numbers, link, sources, targets);
  const plan = planOf(graph);
  box.layout = measured(box, plan, lines, open);
  return box.layout;
}

/** What dagre makes of a graph; repeated modules have the same plan. */
function planOf(graph) {
  const sizes = graph.nodes().map((name) => [name, graph.node(name).width, graph.node(name).height]);
  const key = JSON.stringify([sizes, graph.edges().map(({ v, w }) => [v, w, graph.edge(v, w).weight])]);
  let plan = plans.get(key);
  if (!plan) {
    dagre.layout(graph);
    if (plans.size > 5000) plans.clear();
    plans.set(key, (plan = graph));
  }
  return plan;
}

function ports(box, graph, numbers, link, sources, targets) {
  for (const [name, ends] of [["in", box.ins], ["out", box.outs]]) {
    if (!ends.size) continue;
    graph.setNode(name, { width: 6, height: 1 });
    const [direct, free] = name === "in" ? [(one, values) => link("in", one, values, 1), sources] : [(one, values) => link(one, "out", values, 1), targets];
    for (const [item, values] of ends) direct(numbers.get(item), values);
    for (const one of free) if (!graph.hasEdge(...(name === "in" ? ["in", one] : [one, "out"]))) direct(one, null);
  }
}

function measured(box, graph, lines, open) {
  const { width = 0, height = 0 } = graph.graph();
  const top = box.parent ? HEADER : 0;
  const title = box.parent ? textWidth(boxTitle(box), box.module) + 70 : 0;
  const whole = { width: Math.max(width + 2 * PAD, title), height: height + 2 * PAD + top };
  const [left, up] = [(whole.width - width) / 2, PAD + top];
  const places = box.children.map((item, index) => {
    const node = graph.node(String(index));
    return { item, x: node.x - node.width / 2 + left, y: node.y - node.height / 2 + up, width: node.width, height: node.height };
  });
  const port = (name) => (graph.hasNode(name) ? graph.node(name).x + left : whole.width / 2);
  const end = (place, isTarget) => {
    const inner = open.has(place.item.id) ? place.item.layout : null;
    const shift = inner ? (isTarget ? inner.in : inner.out) : place.width / 2;
    return { x: place.x + shift, y: place.y + (isTarget ? 0 : place.height) };
  };
  const drawn = lines.map(({ one, other, values }) => {
    const middle = graph.edge(one, other).points.slice(1, -1).map(({ x, y }) => ({ x: x + left, y: y + up }));
    const first = one === "in" ? { x: port("in"), y: top } : end(places[one], false);
    const last = other === "out" ? { x: port("out"), y: whole.height } : end(places[other], true);
    const points = [first, ...middle.filter(({ y }) => y > first.y && y < last.y), last];
    return { points, values, isPort: one === "in" || other === "out", box: bounds(points) };
  });
  return { ...whole, places, lines: drawn, in: port("in"), out: port("out") };
}

function bounds(points) {
  const [xs, ys] = [points.map(({ x }) => x), points.map(({ y }) => y)];
  return { x: Math.min(...xs) - 4, y: Math.min(...ys), right: Math.max(...xs) + 4, bottom: Math.max(...ys) };
}

/** A smooth path through points. */
export function pathOf(points, x, y) {
  const at = (point) => `${(point.x + x).toFixed(1)} ${(point.y + y).toFixed(1)}`;
  let text = `M${at(points[0])}`;
  for (let index = 1; index < points.length; index += 1) {
    const [one, other] = [points[index - 1], points[index]];
    const middle = (one.y + other.y) / 2;
    text += `C${at({ x: one.x, y: middle })} ${at({ x: other.x, y: middle })} ${at(other)}`;
  }
  return text;
}

/** Corner and size of something that is shown; of the box around it where that is folded. */
export function placeOf(graph, item, open) {
  const chain = [item, ...around(item)].reverse();
  let [x, y, box] = [0, 0, graph.root];
  let found = { x, y, ...layoutOf(box, open), item: box };
  for (const one of chain) {
    const place = layoutOf(box, open).places.find((each) => each.item === one);
    x += place.x;
    y += place.y;
    found = { x, y, width: place.width, height: place.height, item: one };
    if (one.isNode || !open.has(one.id)) break;
    box = one;
  }
  return found;
}
