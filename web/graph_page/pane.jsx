// One graph: what is in view is drawn, the rest is not.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { memo } from "preact/compat";
import { colorName, counts } from "./colors.js";
import { aliasOf, boxTitle, layoutOf, pathOf, placeOf, shownName } from "./layout.js";

const SMALLEST = 34; // an open box that is lower on the screen is drawn without its contents
const MARGIN = 0.5;

/** Everything to draw in a part of the plane. */
function inView(graph, open, view, scale) {
  const drawn = { boxes: [], lines: [], items: [] };
  const visit = (box, x, y) => {
    const layout = layoutOf(box, open);
    for (const line of layout.lines) {
      const { box: at } = line;
      if (at.right + x < view.x || at.x + x > view.right || at.bottom + y < view.y || at.y + y > view.bottom) continue;
      drawn.lines.push({ line, x, y, key: `${box.id}/${drawn.lines.length}` });
    }
    for (const place of layout.places) {
      const [left, top] = [x + place.x, y + place.y];
      if (left + place.width < view.x || left > view.right) continue;
      if (top + place.height < view.y || top > view.bottom) continue;
      const { item } = place;
      const isOpen = !item.isNode && open.has(item.id);
      const found = { item, x: left, y: top, width: place.width, height: place.height, isOpen };
      if (!isOpen) drawn.items.push(found);
      else {
        drawn.boxes.push(found);
        if (place.height * scale >= SMALLEST) visit(item, left, top);
      }
    }
  };
  visit(graph.root, 0, 0);
  return drawn;
}

const Scene = memo(function Scene({ drawn, scale, selected, mode, marks, colors }) {
  const near = scale > 0.35;
  const isLit = (values) => values.some((node) => node.id === selected);
  return (
    <>
      {drawn.boxes.map((one) => (
        <Box key={`b ${one.item.id}`} {...one} near={near} selected={selected} mode={mode} marks={marks} colors={colors} />
      ))}
      {drawn.lines.map(({ line, x, y, key }) => (
        <g key={key} class={isLit(line.values) ? "line lit" : "line"}>
          <path d={pathOf(line.points, x, y)} marker-end={line.points.length && near ? "url(#arrow)" : undefined} />
          {near && !line.isPort && scale > 0.5 && <Label line={line} x={x} y={y} />}
        </g>
      ))}
      {drawn.items.map((one) => (
        <Item key={`i ${one.item.id}`} {...one} near={near} selected={selected} mode={mode} marks={marks} colors={colors} />
      ))}
    </>
  );
});

function Label({ line, x, y }) {
  const [one, other] = line.points;
  const more = line.values.length > 1 ? ` +${line.values.length - 1}` : "";
  return (
    <text class="type" x={x + (one.x + other.x) / 2} y={y + (one.y + other.y) / 2 + 4}>
      {line.values[0].record.type + more}
    </text>
  );
}

function Box({ item, x, y, width, height, near, selected, mode, marks, colors }) {
  const part = item.kind === "part" ? colors.get(item.children.find((child) => child.isNode)?.record.operator) : null;
  return (
    <g class={`box open ${item.kind} ${selected === item.id ? "selected" : ""}`} data-id={item.id} style={{ "--tint": part ?? "" }}>
      <rect x={x} y={y} width={width} height={height} rx="8" />
      <g class="head" data-fold={item.id} role="button" aria-expanded="true" aria-label={`fold ${boxTitle(item)}`}>
        <rect x={x} y={y} width={width} height="24" rx="8" />
        {near && (
          <>
            <text class="fold" x={x + 10} y={y + 17}>–</text>
            <text class="name" x={x + 24} y={y + 17}>{boxTitle(item)}</text>
            <text class="module" x={x + width - 10} y={y + 17}>{item.module}</text>
          </>
        )}
      </g>
      {near && <Bar box={item} x={x + 8} y={y + 22} width={width - 16} mode={mode} marks={marks} colors={colors} />}
    </g>
  );
}

/** A bar of the colors that a box holds. */
function Bar({ box, x, y, width, mode, marks, colors }) {
  const shares = [...counts(box, mode, marks)].filter(([name]) => colors.has(name));
  const total = mode === "depends" ? shares.reduce((sum, [, number]) => sum + number, 0) : null;
  let at = x;
  return shares.map(([name, number]) => {
    const span = total ? (width * number) / total : Math.min(18, width / shares.length);
    const left = at;
    at += span + (total ? 0 : 3);
    return <rect key={name} class="share" x={left} y={y} width={span} height="4" rx="2" style={{ fill: colors.get(name) }} />;
  });
}

function Item({ item, x, y, width, height, near, selected, mode, marks, colors }) {
  if (!item.isNode) return <Folded {...{ item, x, y, width, height, near, selected, mode, marks, colors }} />;
  const { record, interfaces } = item;
  const color = colors.get(colorName(item, mode, marks));
  const name = shownName(item);
  const alias = aliasOf(item);
  const two = item.name || alias;
  return (
    <g
      class={`node ${record.kind} ${color ? "tinted" : ""} ${selected === item.id ? "selected" : ""}`}
      data-id={item.id}
      style={{ "--tint": color ?? "" }}
      role="button"
      aria-label={`${name} ${record.type} ${record.where}`}
    >
      <rect x={x} y={y} width={width} height={height} rx={record.kind === "call" ? 5 : height / 2} />
      {color && <rect class="tint" x={x} y={y} width="5" height={height} rx="2" />}
      {near && <text class="name" x={x + width / 2} y={y + (two ? 18 : height / 2 + 5)}>{name}</text>}
      {near && two && (
        <text class="below" x={x + width / 2} y={y + 36}>
          {item.name}
          {alias && <tspan class="alias">{(item.name ? " · " : "") + alias}</tspan>}
        </text>
      )}
      {interfaces.length > 0 && <path class="mark" d={`M${x + width - 7} ${y - 5}l5 5 -5 5 -5 -5z`} />}
      <title>{`${item.printed} ${record.type}\n${[record.where, ...interfaces.map(({ key }) => key)].filter(Boolean).join("\n")}`}</title>
    </g>
  );
}

function Folded({ item, x, y, width, height, near, selected, mode, marks, colors }) {
  const words = [item.module, `${item.size} operations`].filter(Boolean).join(" · ");
  return (
    <g
      class={`box folded ${item.kind} ${selected === item.id ? "selected" : ""}`}
      data-id={item.id}
      data-fold={item.id}
      role="button"
      aria-expanded="false"
      aria-label={`unfold ${boxTitle(item)}`}
    >
      {item.kind === "repeat" && <rect class="behind" x={x + 5} y={y + 5} width={width} height={height} rx="8" />}
      <rect x={x} y={y} width={width} height={height} rx="8" />
      {near && (
        <>
          <text class="fold" x={x + 10} y={y + 20}>+</text>
          <text class="name" x={x + 26} y={y + 20}>{boxTitle(item)}</text>
          <text class="below left" x={x + 26} y={y + 36}>{words}</text>
        </>
      )}
      <Bar box={item} x={x + 8} y={y + height - 7} width={width - 16} mode={mode} marks={marks} colors={colors} />
    </g>
  );
}

/** A graph that can be moved and scaled. */
export function Pane({ graph, open, version, selected, goal, mode, marks, colors, title, onSelect, onFold }) {
  const frame = useRef(null);
  const plane = useRef(null);
  const view = useRef(null); // x, y and scale of the plane
  const done = useRef(null); // what was drawn last
  const [, redraw] = useState(0);
  const size = () => frame.current?.getBoundingClientRect() ?? { width: 800, height: 600, left: 0, top: 0 };

  const fit = () => {
    const { width, height } = size();
    const whole = layoutOf(graph.root, open);
    const across = (width - 30) / whole.width;
    const scale = Math.min(1.25, Math.max(Math.min(across, (height - 30) / whole.height), Math.min(across, 0.5), 0.01));
    const top = whole.height * scale < height ? (height - whole.height * scale) / 2 : 12;
    view.current = { x: (width - whole.width * scale) / 2, y: top, scale };
  };
  const center = (item, scale) => {
    const { width, height } = size();
    const place = placeOf(graph, item, open);
    const used = scale ?? Math.max(view.current.scale, 0.6);
    const high = Math.min(place.height * used, height - 60);
    view.current = {
      x: width / 2 - (place.x + place.width / 2) * used,
      y: height / 2 - high / 2 - place.y * used,
      scale: used,
    };
  };
  const rectangle = (margin) => {
    const { width, height } = size();
    const { x, y, scale } = view.current;
    return {
      x: (-x - margin * width) / scale,
      y: (-y - margin * height) / scale,
      right: (width - x + margin * width) / scale,
      bottom: (height - y + margin * height) / scale,
    };
  };
  const moved = () => {
    const { x, y, scale } = view.current;
    plane.current?.setAttribute("transform", `translate(${x} ${y}) scale(${scale})`);
    const [last, now] = [done.current, rectangle(0)];
    const inside = last && last.rect.x <= now.x && last.rect.y <= now.y && last.rect.right >= now.right && last.rect.bottom >= now.bottom;
    const alike = last && Math.abs(Math.log(scale / last.scale)) < 0.25;
    if (!inside || !alike) redraw((count) => count + 1);
  };

  if (view.current === null || view.current.graph !== graph.label) {
    const old = view.current;
    view.current = old && { ...old, graph: graph.label };
  }
  useLayoutEffect(() => {
    if (!view.current) fit();
    done.current = null;
    moved();
  }, [graph, version]);
  useLayoutEffect(() => {
    if (!goal) return;
    if (goal.fit) fit();
    else if (goal.zoom) zoom(goal.zoom);
    else if (goal.keep) keep(goal.keep);
    else {
      const item = graph.byName.get(goal.id) ?? graph.boxes.get(goal.id);
      if (item) center(item);
    }
    done.current = null;
    moved();
  }, [goal, graph]);
  useEffect(() => {
    const watcher = new ResizeObserver(() => {
      done.current = null;
      moved();
    });
    watcher.observe(frame.current);
    return () => watcher.disconnect();
  }, [graph, version]);

  /** Leave a box where it is on the screen while others move. */
  function keep({ id, x, y }) {
    const item = graph.byName.get(id) ?? graph.boxes.get(id);
    if (!item) return;
    const place = placeOf(graph, item, open);
    const { scale } = view.current;
    view.current = { ...view.current, x: x - place.x * scale, y: y - place.y * scale };
  }
  function zoom(factor, at) {
    const { width, height, left, top } = size();
    const [px, py] = at ? [at.x - left, at.y - top] : [width / 2, height / 2];
    const { x, y, scale } = view.current;
    const next = Math.min(3, Math.max(0.005, scale * factor));
    view.current = { ...view.current, x: px - ((px - x) * next) / scale, y: py - ((py - y) * next) / scale, scale: next };
    moved();
  }
  const wheel = (event) => {
    event.preventDefault();
    if (event.ctrlKey || event.metaKey || !event.shiftKey) zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), { x: event.clientX, y: event.clientY });
    else {
      view.current = { ...view.current, x: view.current.x - event.deltaY - event.deltaX };
      moved();
    }
  };
  useEffect(() => {
    const element = frame.current;
    element.addEventListener("wheel", wheel, { passive: false });
    return () => element.removeEventListener("wheel", wheel);
  });
  const press = (event) => {
    if (event.button !== 0) return;
    const start = { x: event.clientX, y: event.clientY, view: { ...view.current }, dragged: false };
    const target = event.target;
    const move = (next) => {
      const [dx, dy] = [next.clientX - start.x, next.clientY - start.y];
      if (Math.hypot(dx, dy) > 4) start.dragged = true;
      if (!start.dragged) return;
      view.current = { ...view.current, x: start.view.x + dx, y: start.view.y + dy };
      moved();
    };
    const release = () => {
      removeEventListener("pointermove", move);
      removeEventListener("pointerup", release);
      if (!start.dragged) clicked(target);
    };
    addEventListener("pointermove", move);
    addEventListener("pointerup", release);
  };
  const clicked = (target) => {
    const fold = target.closest("[data-fold]")?.dataset.fold;
    const id = target.closest("[data-id]")?.dataset.id;
    if (fold !== undefined) {
      const box = graph.boxes.get(fold);
      const place = placeOf(graph, box, open);
      const { x, y, scale } = view.current;
      onFold(fold, { id: fold, x: x + place.x * scale, y: y + place.y * scale });
    } else onSelect(id && graph.byName.has(id) ? id : null);
  };

  let drawn = null;
  if (view.current) {
    const rect = rectangle(MARGIN);
    const { scale } = view.current;
    const known = done.current;
    const moving = known && known.rect.x === rect.x && known.rect.y === rect.y && known.scale === scale && known.open === version && known.graph === graph;
    if (!moving) done.current = { rect, scale, open: version, graph, drawn: inView(graph, open, rect, scale) };
    drawn = done.current.drawn;
  }
  return (
    <section class="pane" aria-label={title} ref={frame} onPointerDown={press}>
      <svg>
        <defs>
          <marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
            <path d="M0 0.8L7.5 4L0 7.2z" class="arrow" />
          </marker>
        </defs>
        <g ref={plane} transform={view.current ? `translate(${view.current.x} ${view.current.y}) scale(${view.current.scale})` : undefined}>
          {drawn && <Scene {...{ drawn, scale: done.current.scale, selected, mode, marks, colors }} />}
        </g>
      </svg>
      {title && <h2>{title}</h2>}
    </section>
  );
}
