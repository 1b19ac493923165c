// A sheet to draw on, and what of it the model is given.

export const CELLS = 8;
const PEN = 24; // about one of the cells that a drawing of the usual size is cut into

/** Let the canvas be drawn on with mouse, pen or finger; `changed` is called as it happens. */
export function sheet(canvas, changed) {
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  Object.assign(pen, { lineWidth: PEN, lineCap: "round", lineJoin: "round", strokeStyle: "#111" });
  let last = null;
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    const scale = canvas.width / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  };
  const line = (from, to) => {
    pen.beginPath();
    pen.moveTo(...from);
    pen.lineTo(...to);
    pen.stroke();
    changed();
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = at(event);
    line(last, last);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    const next = at(event);
    line(last, next);
    last = next;
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => (last = null));
  }
  return {
    clear() {
      pen.clearRect(0, 0, canvas.width, canvas.height);
      changed();
    },
    cells() {
      const { data, width, height } = pen.getImageData(0, 0, canvas.width, canvas.height);
      const ink = Float32Array.from({ length: width * height }, (_, i) => data[4 * i + 3] / 255);
      return cells(ink, width, height);
    },
  };
}

/**
 * Fit ink of [0, 1] into 8×8 cells: the longer side fills them, the shorter is in the middle.
 *
 * @returns {Float32Array | null} the mean of the ink on the area of each cell; null for none.
 */
export function cells(ink, width, height) {
  let [left, right, top, bottom] = [width, -1, height, -1];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (ink[y * width + x] <= 0.5) continue;
      [left, right] = [Math.min(left, x), Math.max(right, x)];
      [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
    }
  }
  if (right < 0) return null;
  const [across, down] = [right + 1 - left, bottom + 1 - top];
  const side = Math.max(across, down);
  const fromLeft = left - Math.floor((side - across) / 2);
  const fromTop = top - Math.floor((side - down) / 2);
  const found = new Float32Array(CELLS * CELLS);
  const share = CELLS / side; // of a cell, along one side, that a pixel has
  for (let y = top; y <= bottom; y++) {
    for (let x = left; x <= right; x++) {
      const value = ink[y * width + x];
      if (!value) continue;
      for (const [row, high] of parts((y - fromTop) * share, share)) {
        for (const [column, wide] of parts((x - fromLeft) * share, share)) {
          found[row * CELLS + column] += value * high * wide;
        }
      }
    }
  }
  return found.map((value) => Math.min(1, value));
}

/** The cells that [start, start + length] lies in, with the length that lies in each. */
function parts(start, length) {
  const found = [];
  for (let cell = Math.floor(start); cell < Math.min(CELLS, start + length - 1e-9); cell++) {
    found.push([cell, Math.min(start + length, cell + 1) - Math.max(start, cell)]);
  }
  return found;
}
