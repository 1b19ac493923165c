// The graph page: its state, its bar, and what keys do.

import { render } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { palette } from "./colors.js";
import { forget } from "./layout.js";
import { around, changes, decode, openAtFirst, search } from "./model.js";
import { Details, Help } from "./panels.jsx";
import { Pane } from "./pane.jsx";
import { COLORS, firstState, readAddress, writeAddress } from "./state.js";

const source = decode(JSON.parse(document.getElementById("graphs").textContent));
const labels = source.graphs.map(({ label }, index) => `${index}: ${label.length > 48 ? `${label.slice(0, 47)}…` : label}`);

function opened(state, first, address) {
  const open = new Set([...first, ...address.open]);
  for (const id of address.shut) open.delete(id);
  for (const box of itemOf(state, state.at) ? around(itemOf(state, state.at)) : []) open.add(box.id);
  return { ...state, open };
}

function itemOf(state, id) {
  if (!id) return null;
  for (const index of [state.graph, state.beside]) {
    const graph = index === null ? null : source.graph(index);
    const found = graph && (graph.byName.get(id) ?? graph.boxes.get(id));
    if (found) return found;
  }
  return null;
}

function useSearch(graph, goTo) {
  const [text, setText] = useState("");
  const [place, setPlace] = useState(-1);
  const found = useMemo(() => search(graph, text), [graph, text]);
  const step = (count) => {
    if (!found.length) return;
    const next = (place + count + found.length) % found.length;
    setPlace(next);
    goTo(found[next].node.id);
  };
  const change = (value) => {
    setText(value);
    setPlace(-1);
  };
  return { text, place, found, step, change };
}

function App() {
  const first = useMemo(() => openAtFirst(source.graph(source.graphs.length - 1)), []);
  const [state, setState] = useState(() => {
    const address = readAddress(location.hash);
    return opened(firstState(source, address), first, address);
  });
  const [version, setVersion] = useState(0);
  const [goal, setGoal] = useState(state.at ? { id: state.at } : null);
  const [help, setHelp] = useState(false);
  const field = useRef(null);
  const graph = source.graph(state.graph);
  const other = state.beside === null ? null : source.graph(state.beside);
  const item = itemOf(state, state.at);

  const relaid = (ids) => {
    for (const one of [graph, other]) {
      if (!one) continue;
      if (ids === null) for (const box of one.boxes.values()) box.layout = null;
      else for (const id of ids) forget(one.boxes.get(id) ?? one.root);
    }
    setVersion((count) => count + 1);
  };
  const unfold = (boxes) => {
    const shut = boxes.filter(({ id }) => !state.open.has(id));
    if (!shut.length) return state.open;
    relaid(shut.map(({ id }) => id));
    return new Set([...state.open, ...shut.map(({ id }) => id)]);
  };
  const goTo = (id) => {
    const found = itemOf(state, id);
    if (!found) return;
    setState({ ...state, at: id, open: unfold(around(found)) });
    setGoal({ id });
  };
  const fold = (id, kept) => {
    const open = new Set(state.open);
    if (!open.delete(id)) open.add(id);
    relaid([id]);
    setState({ ...state, at: id, open });
    setGoal(kept ? { keep: kept } : { id });
  };
  const show = (change) => {
    const next = { ...state, ...change };
    if (next.beside === next.graph) next.beside = null;
    if ("beside" in change && next.beside !== null) next.colors = "changes";
    if (next.colors === "changes" && next.beside === null) next.colors = "program";
    for (const index of [next.graph, next.beside]) if (index !== null) for (const box of source.graph(index).boxes.values()) box.layout = null;
    setVersion((count) => count + 1);
    setState(next);
    setGoal(next.at ? { id: next.at } : { fit: true });
  };
  const all = (isOpen) => {
    const boxes = [graph, other].filter(Boolean).flatMap((one) => [...one.boxes.values()]);
    relaid(null);
    setState({ ...state, open: new Set(isOpen ? boxes.map(({ id }) => id).filter(Boolean) : []) });
    setGoal({ fit: true });
  };
  const dark = state.theme ? state.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const turn = () => setState({ ...state, theme: dark ? "light" : "dark" });
  const recolor = () => {
    const usable = COLORS.filter((name) => name !== "changes" || other);
    setState({ ...state, colors: usable[(usable.indexOf(state.colors) + 1) % usable.length] });
  };
  const found = useSearch(graph, goTo);
  const compare = () => show({ beside: other ? null : state.graph ? state.graph - 1 : source.graphs.length > 1 ? 1 : null });

  useEffect(() => {
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    writeAddress(state, first);
  });
  useEffect(() => {
    const follow = () => {
      const address = readAddress(location.hash);
      relaid(null);
      setState(opened(firstState(source, address), first, address));
      setGoal(address.at ? { id: address.at } : { fit: true });
    };
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  });
  useEffect(() => {
    const press = (event) => {
      if (/^(input|select)$/i.test(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
      const onButton = event.target.tagName === "BUTTON" && (event.key === "Enter" || event.key === " ");
      if (onButton) return;
      const action = keys(event)[event.key];
      if (!action) return;
      event.preventDefault();
      action();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  });
  useEffect(() => {
    document.body.dataset.ready = "true";
  }, []);

  const keys = (event) => ({
    "/": () => field.current.focus(),
    Escape: () => (help ? setHelp(false) : setState({ ...state, at: null })),
    Enter: () => item && fold(item.isNode ? item.parent.id : item.id),
    " ": () => item && fold(item.isNode ? item.parent.id : item.id),
    ArrowDown: () => walk(event.shiftKey ? inside(item) : flow(item, 1)),
    ArrowUp: () => walk(event.shiftKey ? item?.parent : flow(item, -1)),
    ArrowLeft: () => walk(sibling(item, -1)),
    ArrowRight: () => walk(sibling(item, 1)),
    "[": () => state.graph > 0 && show({ graph: state.graph - 1 }),
    "]": () => state.graph < source.graphs.length - 1 && show({ graph: state.graph + 1 }),
    b: compare,
    c: recolor,
    e: () => all(true),
    w: () => all(false),
    t: turn,
    0: () => setGoal({ fit: true }),
    "+": () => setGoal({ zoom: 1.3 }),
    "=": () => setGoal({ zoom: 1.3 }),
    "-": () => setGoal({ zoom: 1 / 1.3 }),
    "?": () => setHelp(!help),
  });
  const walk = (to) => {
    const next = to ?? (item ? null : graph.root.children[0]);
    if (next?.parent) goTo(next.id);
  };

  const colors = palette(source, state.colors);
  const marks = useMemo(() => {
    if (!other) return [null, null];
    const forward = state.beside < state.graph;
    return [changes(graph, other, forward ? "new" : "gone"), changes(other, graph, forward ? "gone" : "new")];
  }, [graph, other]);
  const pane = (which, mark) => (
    <Pane
      key={which === graph ? "main" : "other"}
      {...{ graph: which, open: state.open, version, selected: state.at, goal, mode: state.colors, marks: mark, colors }}
      title={other || source.graphs.length > 1 ? which.label : ""}
      onSelect={(id) => setState({ ...state, at: id })}
      onFold={fold}
    />
  );
  return (
    <>
      <Bar {...{ state, show, found, field, all, turn, dark, setGoal, setHelp, help, compare, other, setState }} />
      <main>
        <div class="panes">
          {other && state.beside < state.graph && pane(other, marks[1])}
          {pane(graph, marks[0])}
          {other && state.beside > state.graph && pane(other, marks[1])}
        </div>
        <aside aria-live="polite">
          <Details {...{ document: source, graph, other, item, goTo, mode: state.colors, marks: marks[0] }} />
        </aside>
      </main>
      {help && <Help close={() => setHelp(false)} />}
    </>
  );
}

/** A choice of one of several things. */
const Menu = ({ id, label, value, options, onChange }) => (
  <label>
    {label}{" "}
    <select id={id} value={value} onChange={(event) => onChange(options[event.target.selectedIndex][0])}>
      {options.map(([one, text]) => <option key={one} value={one}>{text}</option>)}
    </select>
  </label>
);

const inside = (item) => item?.children?.[0];

function sibling(item, step) {
  const all = item?.parent?.children;
  return all?.[all.indexOf(item) + step];
}

/** The next thing along the flow of values, on the same level or further out. */
function flow(item, step) {
  for (let one = item; one?.parent; one = one.parent) {
    const { edges } = one.parent;
    if (step > 0 && edges.has(one)) return [...edges.get(one).keys()][0];
    if (step < 0) for (const [before, after] of edges) if (after.has(one)) return before;
  }
  return null;
}

function Bar({ state, show, found, field, all, turn, dark, setGoal, setHelp, help, compare, other, setState }) {
  const many = source.graphs.length > 1;
  const options = labels.map((label, index) => [index, label]);
  const modes = [["program", "program"], ["depends", "dependence"], ...(other ? [["changes", "changes"]] : [])];
  return (
    <header>
      <h1>{source.title}</h1>
      {many && (
        <>
          <button title="before this pass: [" disabled={state.graph === 0} onClick={() => show({ graph: state.graph - 1 })}>‹</button>
          <Menu id="graph" label="graph" value={state.graph} options={options} onChange={(graph) => show({ graph })} />
          <button title="after the next pass: ]" disabled={state.graph === labels.length - 1} onClick={() => show({ graph: state.graph + 1 })}>›</button>
          <button id="compare" aria-pressed={Boolean(other)} title="side by side: b" onClick={compare}>side by side</button>
          {other && <Menu id="beside" label="beside" value={state.beside} options={options} onChange={(beside) => show({ beside })} />}
        </>
      )}
      <Menu id="colors" label="colors" value={state.colors} options={modes} onChange={(colors) => setState({ ...state, colors })} />
      <span class="search">
        <input
          ref={field}
          id="search"
          type="search"
          placeholder="search  /"
          aria-label="search"
          value={found.text}
          onInput={(event) => found.change(event.target.value)}
          onKeyDown={(event) => {
            if (event.key === "Enter") found.step(event.shiftKey ? -1 : 1);
            if (event.key === "Escape") event.target.blur();
          }}
        />
        <output>{found.text && (found.found.length ? `${found.place + 1 || "–"} of ${found.found.length}` : "nothing")}</output>
        {found.text && found.place < 0 && found.found.length > 0 && (
          <ul class="found">
            {found.found.slice(0, 12).map(({ node, label, kind }, index) => (
              <li key={node.id}>
                <button onClick={() => found.step(index + 1)}>{label}</button> <span>{kind}</span>
              </li>
            ))}
          </ul>
        )}
      </span>
      <button id="fit" title="fit: 0" onClick={() => setGoal({ fit: true })}>fit</button>
      <button id="unfold" title="unfold everything: e" onClick={() => all(true)}>unfold all</button>
      <button id="fold" title="fold everything: w" onClick={() => all(false)}>fold all</button>
      <button id="theme" title="dark or light: t" onClick={turn}>{dark ? "light" : "dark"}</button>
      <button id="help" title="keys: ?" aria-pressed={help} onClick={() => setHelp(!help)}>?</button>
    </header>
  );
}

render(<App />, document.getElementById("page"));
