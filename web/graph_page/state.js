// What the address says: #graph=1&beside=0&at=add_3&open=blocks.0–2&colors=depends&theme=dark

const FIELDS = ["graph", "beside", "at", "colors", "theme"];
export const COLORS = ["program", "depends", "changes"];

export function readAddress(text) {
  const given = new URLSearchParams(text.replace(/^#/, ""));
  const found = {};
  for (const name of FIELDS) if (given.has(name)) found[name] = given.get(name);
  for (const name of ["graph", "beside"]) if (name in found) found[name] = Number(found[name]);
  for (const name of ["open", "shut"]) found[name] = given.get(name)?.split("|") ?? [];
  return found;
}

export function writeAddress(state, first) {
  const given = new URLSearchParams();
  for (const name of FIELDS) if (state[name] !== null && state[name] !== undefined) given.set(name, state[name]);
  const [open, shut] = [[...state.open].filter((id) => !first.has(id)), [...first].filter((id) => !state.open.has(id))];
  if (open.length && open.length <= 40) given.set("open", open.join("|"));
  if (shut.length && shut.length <= 40) given.set("shut", shut.join("|"));
  try {
    history.replaceState(null, "", `#${given}`);
  } catch {
    // a frame of a notebook has no address of its own
  }
}

/** The state at first, checked against what the document has. */
export function firstState(document, address) {
  const count = document.graphs.length;
  const valid = (number) => Number.isInteger(number) && number >= 0 && number < count;
  return {
    graph: valid(address.graph) ? address.graph : count - 1,
    beside: valid(address.beside) ? address.beside : null,
    at: address.at ?? null,
    colors: COLORS.includes(address.colors) ? address.colors : "program",
    theme: ["dark", "light"].includes(address.theme) ? address.theme : null,
    open: new Set(),
  };
}
