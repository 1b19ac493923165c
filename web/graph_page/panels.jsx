// The panel at the side: a node, a box, or the whole graph.

import { palette, meaning } from "./colors.js";
import { boxTitle } from "./layout.js";

export function Details({ document, graph, other, item, goTo, mode, marks }) {
  if (!item) return <Overview {...{ document, graph, goTo, mode }} />;
  return item.isNode ? <NodeDetails {...{ document, graph, other, node: item, goTo, mode, marks }} /> : <BoxDetails {...{ document, graph, box: item, goTo }} />;
}

const Row = ({ name, children }) => (
  <>
    <dt>{name}</dt>
    <dd>{children}</dd>
  </>
);

const Links = ({ nodes, goTo }) => (
  <ul class="links">
    {nodes.slice(0, 40).map((node) => (
      <li key={node.id}>
        <button onClick={() => goTo(node.id)}>{node.id}</button> <span class="type">{node.record.type}</span>
      </li>
    ))}
    {nodes.length > 40 && <li>and {nodes.length - 40} more</li>}
  </ul>
);

function NodeDetails({ document, other, node, goTo, marks }) {
  const { record, interfaces } = node;
  const mark = marks?.get(node.id);
  const old = other?.byName.get(node.id)?.record;
  return (
    <>
      <h2>{record.kind === "call" ? record.op : node.id}</h2>
      <dl>
        <Row name="value">
          <code>{[node.printed, record.type].filter(Boolean).join("  ")}</code>
        </Row>
        {record.call && <Row name="call"><code>{record.call}</code></Row>}
        {record.where && <Row name="module">{record.where}</Row>}
        {record.part && <Row name="program">{record.part} ({record.operator})</Row>}
        {record.source && <Row name="source line"><code class="source">{record.source}</code></Row>}
        <Row name="depends on">{node.depends}</Row>
        {mark && <Row name="compared">{meaning(mark, "changes")}</Row>}
        {mark && old && (old.call !== record.call || old.type !== record.type) && (
          <Row name="in the other">
            <code>{`${old.call}  ${old.type}`}</code>
          </Row>
        )}
      </dl>
      {interfaces.map((one) => (
        <Interface key={one.key} one={one} values={document.values[one.key]} />
      ))}
      {node.inputs.length > 0 && <h3>reads</h3>}
      <Links nodes={node.inputs} goTo={goTo} />
      {record.weights.length > 0 && <h3>weights</h3>}
      <ul class="links">{record.weights.map((text) => <li key={text}><code>{text}</code></li>)}</ul>
      {node.users.length > 0 && <h3>is read by</h3>}
      <Links nodes={node.users} goTo={goTo} />
    </>
  );
}

function Interface({ one, values }) {
  return (
    <div class="interface">
      <h3>
        interface <code>{one.key}</code>
      </h3>
      <p>
        {[one.kind, ...one.aliases, one.type, `${one.uses} ${one.uses === 1 ? "use" : "uses"}`, one.module].filter(Boolean).join(" · ")}
      </p>
      {values && <Values values={values} />}
    </div>
  );
}

const short = (number) => (Number.isInteger(number) ? String(number) : number.toPrecision(4));

function Values({ values }) {
  if (!values.counts) return <p>recorded: {values.type}, nothing finite</p>;
  const most = Math.max(...values.counts);
  const [rows, columns] = [values.picture.length, values.picture[0]?.length ?? 0];
  const cell = Math.min(8, 240 / Math.max(columns, 1));
  return (
    <div class="values">
      <p>
        recorded {values.type}: mean {short(values.mean)}, deviation {short(values.std)}
        {values.not_finite > 0 && <strong>, {values.not_finite} not finite</strong>}
      </p>
      <svg class="histogram" viewBox="0 0 256 70" role="img" aria-label={`histogram from ${short(values.min)} to ${short(values.max)}`}>
        {values.counts.map((count, index) => (
          <rect key={index} x={index * 8} y={56 - (54 * count) / most} width="7" height={(54 * count) / most} />
        ))}
        <text x="0" y="68">{short(values.min)}</text>
        <text x="256" y="68" class="end">{short(values.max)}</text>
      </svg>
      {rows > 0 && (
        <svg class="picture" viewBox={`0 0 ${columns * cell} ${rows * cell}`} style={{ width: `${columns * cell}px` }} role="img" aria-label="the first row">
          {values.picture.map((row, y) =>
            row.map((level, x) => (
              <rect key={`${x} ${y}`} x={x * cell} y={y * cell} width={cell + 0.1} height={cell + 0.1} fill={level < 0 ? "#e03131" : `rgb(${level},${level},${level})`} />
            )),
          )}
        </svg>
      )}
      <p>first: {values.first.join(", ")}</p>
    </div>
  );
}

function BoxDetails({ document, graph, box, goTo }) {
  const prefix = `${box.path}:`;
  const own = box.kind === "module" ? graph.interfaces.filter(({ key }) => key.startsWith(prefix)) : [];
  return (
    <>
      <h2>{boxTitle(box)}</h2>
      <dl>
        {box.module && <Row name="class">{box.module}</Row>}
        {box.path && <Row name="path">{box.path}</Row>}
        <Row name="operations">{box.size}</Row>
      </dl>
      {own.map((one) => (
        <div key={one.key} onClick={() => one.node && goTo(one.node.id)}>
          <Interface one={one} values={document.values[one.key]} />
        </div>
      ))}
    </>
  );
}

function Overview({ document, graph, goTo, mode }) {
  const colors = [...palette(document, mode)];
  const named = graph.interfaces.filter(({ aliases }) => aliases.length);
  return (
    <>
      <h2>{graph.name}</h2>
      <p>
        {graph.nodes.length} nodes, {graph.interfaces.length} interfaces
      </p>
      {colors.length > 0 && <h3>colors</h3>}
      <ul class="legend">
        {colors.map(([name, color]) => (
          <li key={name}>
            <i style={{ background: color }} /> {meaning(name, mode)}
          </li>
        ))}
      </ul>
      {graph.insertions.length > 0 && <h3>inserted</h3>}
      <ul class="links">
        {graph.insertions.map(([kind, part, operator, at, result]) => (
          <li key={part + at}>
            <button onClick={() => goTo(result)}>{part}</button> {operator}: {kind} at <code>{at}</code>
          </li>
        ))}
      </ul>
      {named.length > 0 && <h3>interfaces with a name</h3>}
      <ul class="links">
        {named.map(({ key, aliases, node, type }) => (
          <li key={key}>
            <button onClick={() => node && goTo(node.id)}>{aliases.join(", ")}</button> <span class="type">{type}</span>
            {document.values[key] && " (recorded)"}
          </li>
        ))}
      </ul>
      <h3>passes</h3>
      <table>
        {document.history.map(([text, time, changed, nodes], index) => (
          <tr key={index} class={changed ? "" : "idle"}>
            <td title={text}>{text.length > 60 ? `${text.slice(0, 59)}…` : text}</td>
            <td>{changed ? `${nodes} nodes` : "nothing"}</td>
            <td>{time.toFixed(1)} ms</td>
          </tr>
        ))}
      </table>
    </>
  );
}

const KEYS = [
  ["/", "search; Enter goes to the next match"],
  ["Up Down", "what a value is read from, what reads it"],
  ["Left Right", "neighbors in the same module"],
  ["Enter", "fold or unfold"],
  ["Shift Down Up", "into a module, out of it"],
  ["[ ]", "before and after a pass"],
  ["b", "compare with the graph before, side by side"],
  ["c", "colors: program, dependence, changes"],
  ["e w", "unfold everything, fold everything"],
  ["0 + -", "fit, larger, smaller"],
  ["t", "dark or light"],
  ["Esc", "select nothing"],
];

export const Help = ({ close }) => (
  <dialog open class="help">
    <h2>Keys</h2>
    <dl>{KEYS.map(([key, text]) => <Row key={key} name={key}>{text}</Row>)}</dl>
    <button onClick={close}>close</button>
  </dialog>
);
