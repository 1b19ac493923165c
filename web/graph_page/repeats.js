// Repeated modules, such as blocks.0–11 ×12, in one box each.

import { newBox } from "./model.js";

const LONGEST = 6;

const plain = (name) => name.replace(/\d+/g, "#");

/** What repeats have in common: operations and types, and names but for their numbers. */
function pattern(item) {
  if (item.pattern) return item.pattern;
  const { record } = item;
  item.pattern = item.isNode
    ? `${record.kind === "tensor" ? plain(record.op) : record.op} ${record.type} ${plain(item.name ?? "")}`
    : `${plain(item.label)}(${item.children.map(pattern).join()})`;
  return item.pattern;
}

const numberOf = (item) => {
  const name = item.isNode ? item.name : item.kind === "module" && !item.again ? item.name : "";
  return /^\d+$/.test(name ?? "") ? Number(name) : null;
};

/** Return the children of a box with repeats in boxes of their own. */
export function grouped(children, parent) {
  const found = [];
  for (let start = 0; start < children.length; ) {
    const run = longest(children, start);
    if (!run) {
      found.push(children[start]);
      start += 1;
      continue;
    }
    const items = children.slice(start, start + run.period * run.count);
    const numbers = items.map(numberOf).filter((number) => number !== null);
    const range = `${numbers[0]}–${numbers[0] + run.count - 1}`;
    const box = newBox(`${parent.id}.${range}`, `${range} ×${run.count}`, "repeat");
    Object.assign(box, { path: parent.path, children: items, module: items[run.lead].module ?? "" });
    found.push(box);
    start += items.length;
  }
  return found;
}

function longest(children, start) {
  let best = null;
  for (let period = 1; period <= LONGEST && start + 2 * period <= children.length; period += 1) {
    const lead = children.slice(start, start + period).findIndex((item) => numberOf(item) !== null);
    if (lead < 0) continue;
    let count = 1;
    while (repeats(children, start, period, count, lead)) count += 1;
    if (count > 1 && (!best || count * period > best.count * best.period)) best = { period, count, lead };
  }
  return best;
}

/** Whether one more repeat follows; its number is one more. */
function repeats(children, start, period, count, lead) {
  const at = start + period * count;
  if (at + period > children.length) return false;
  if (numberOf(children[at + lead]) !== numberOf(children[start + lead]) + count) return false;
  for (let row = 0; row < period; row += 1) {
    if (pattern(children[start + row]) !== pattern(children[at + row])) return false;
  }
  return true;
}
