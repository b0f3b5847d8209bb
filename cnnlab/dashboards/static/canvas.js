// Draws curves, marks and the picture over time of a figure onto canvases, one over each plot, as plotly.js draws them.

const DASHES = { dash: (width) => [3 * width, 3 * width], dot: (width) => [width, width] };

// The numbers 0 to 1 along an axis, in pixels from the plot's left or top edge. On a log axis lines go far below the plot
// to what is 0 or less, as those of plotly.js do.
function makeScale(axis, length, downwards) {
  const [first, last] = axis.range;
  const perUnit = length / (last - first);
  const log = axis.type === "log", below = (first + last) / 2 - 10 * Math.abs(last - first);
  return (value, line = false) => {
    const along = ((log ? (line && value <= 0 ? below : Math.log10(value)) : value) - first) * perUnit;
    return downwards ? length - along : along;
  };
}

// Where a plot lies in its figure, in pixels.
function findBox(layout, xAxis, yAxis) {
  const { l = 0, r = 0, t = 0, b = 0 } = layout.margin ?? {};
  const wide = layout.width - l - r, high = layout.height - t - b;
  const [left, right] = xAxis.domain ?? [0, 1], [bottom, top] = yAxis.domain ?? [0, 1];
  return { left: l + left * wide, top: t + (1 - top) * high, width: (right - left) * wide, height: (top - bottom) * high };
}

const nameAxis = (axis) => axis.replace(/^([xy])/, "$1axis");
const at = (values, place) => (Array.isArray(values) || ArrayBuffer.isView(values) ? values[place] : values);

function drawLine(pen, trace, across, up, paint) {
  const { x, y } = trace, count = Math.min(x.length, y.length);
  const { color, width = 2, dash } = trace.line ?? {};
  pen.beginPath();
  let drawing = false;
  for (let place = 0; place < count; place += 1) {
    const right = across(x[place], true), down = up(y[place], true);
    if (!Number.isFinite(right) || !Number.isFinite(down)) {
      drawing &&= trace.connectgaps === true;
    } else if (drawing) {
      pen.lineTo(right, down);
    } else {
      pen.moveTo(right, down);
      drawing = true;
    }
  }
  if (trace.fill === "toself") {
    pen.fillStyle = paint(trace.fillcolor);
    pen.fill();
  }
  if (!width) return;
  pen.setLineDash(DASHES[dash]?.(Math.max(width, 3)) ?? []);
  pen.lineWidth = width;
  pen.strokeStyle = paint(color);
  pen.stroke();
}

// The outline of a mark of a radius around a point; those of plotly.js.
const MARKS = {
  circle: (pen, x, y, radius) => pen.arc(x, y, radius, 0, 2 * Math.PI),
  square: (pen, x, y, radius) => pen.rect(x - radius, y - radius, 2 * radius, 2 * radius),
  "triangle-up": (pen, x, y, radius) => outline(pen, [[x - radius * 1.155, y + radius / 2], [x + radius * 1.155, y + radius / 2], [x, y - radius]]),
  "triangle-down": (pen, x, y, radius) => outline(pen, [[x - radius * 1.155, y - radius / 2], [x + radius * 1.155, y - radius / 2], [x, y + radius]]),
  x: (pen, x, y, radius) => {
    const one = (0.8 * radius) / Math.SQRT2;
    const steps = [[1, 1], [1, -1], [-1, -1], [1, -1], [-1, -1], [-1, 1], [-1, -1], [-1, 1], [1, 1], [-1, 1], [1, 1]];
    let right = x, down = y + one;
    outline(pen, [[right, down], ...steps.map(([across, up]) => [(right += across * one), (down += up * one)])]);
  },
};

function outline(pen, points) {
  points.forEach(([x, y], place) => (place ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.closePath();
}

// The colour of a mark: a text, or a number that a scale turns into one.
function colourMark(marker, value) {
  if (typeof value !== "number") return value;
  const share = (value - marker.cmin) / (marker.cmax - marker.cmin);
  return marker.colorscale.find(([place]) => Math.abs(place - share) < 1e-6)?.[1] ?? "#888888";
}

// The outline of a hollow mark.
function strokeMark(pen, colour) {
  pen.setLineDash([]);
  pen.lineWidth = 1;
  pen.strokeStyle = colour;
  pen.stroke();
}

// Marks that are drawn whole at the edges of a plot's box are not drawn beyond them.
function drawMarks(pen, { x, y, marker = {}, line }, across, up, paint, box) {
  const count = Math.min(x.length, y.length);
  for (let place = 0; place < count; place += 1) {
    const right = across(x[place]), down = up(y[place]);
    if (!Number.isFinite(right) || !Number.isFinite(down)) continue;
    if (box && (right < 0 || right > box.width || down < 0 || down > box.height)) continue;
    const colour = paint(colourMark(marker, at(marker.color, place) ?? line?.color));
    if (pen.fillStyle !== colour) pen.fillStyle = colour;
    const [symbol, hollow] = (at(marker.symbol, place) ?? "circle").split(/-(open)$/);
    pen.beginPath();
    (MARKS[symbol] ?? MARKS.circle)(pen, right, down, (marker.size ?? 6) / 2);
    if (hollow) strokeMark(pen, colour);
    else pen.fill();
  }
}

// The picture of histograms over time (see cnnlab/plots/over_time.py): a column a stretch of updates, a band a layer.
function paintBands(trace, colours, ground, line, red) {
  const { bands, times, layers, bins, every } = trace;
  const picture = (trace.picture ??= document.createElement("canvas"));
  const height = layers * bins, stride = height + layers;
  Object.assign(picture, { width: times, height });
  const pen = picture.getContext("2d"), image = pen.createImageData(times, height), pixels = image.data;
  const mix = (one, other, share) => one + (other - one) * share;
  for (let time = 0; time < times; time += 1) {
    for (let layer = 0; layer < layers; layer += 1) {
      const lost = bands[time * stride + height + layer] / 255;
      for (let bin = 0; bin < bins; bin += 1) {
        const strength = bands[time * stride + layer * bins + bin] / 255;
        const at = 4 * (((layer + 1) * bins - 1 - bin) * times + time);
        for (let part = 0; part < 3; part += 1) {
          pixels[at + part] = bin ? mix(mix(ground[part], colours[layer][part], strength), red[part], lost) : line[part];
        }
        pixels[at + 3] = 255;
      }
    }
  }
  pen.putImageData(image, 0, 0);
  Object.assign(trace, { dx: every, x0: (every - 1) / 2, dy: 1 / bins, y0: -0.5 + 0.5 / bins });
}

function drawPicture(pen, trace, across, up) {
  if (!trace.picture) return;
  const { x0 = 0, dx = 1, y0 = 0, dy = 1, picture } = trace;
  const [left, right] = [x0 - dx / 2, x0 + (picture.width - 0.5) * dx].map((x) => Math.round(across(x)));
  const [top, bottom] = [y0 - dy / 2, y0 + (picture.height - 0.5) * dy].map((y) => Math.round(up(y)));
  pen.imageSmoothingEnabled = false;
  pen.drawImage(picture, left, top, right - left, bottom - top);
}

function clip(pen, { width, height }) {
  pen.beginPath();
  pen.rect(0, 0, width, height);
  pen.clip();
}

// Pixels around a plot in which marks that are not cut off at its edges have room.
const EDGE = 8;

// One canvas over each plot of a figure; `draw` draws those plots of which a trace has changed.
function makeCanvases(box) {
  const canvases = new Map();
  const find = (name) => {
    if (!canvases.has(name)) {
      const canvas = document.createElement("canvas");
      canvas.setAttribute("aria-hidden", "true");
      canvas.dataset.plot = name;
      box.append(canvas);
      canvases.set(name, canvas);
    }
    return canvases.get(name);
  };
  const place = (canvas, box, edge) => {
    const scale = window.devicePixelRatio || 1;
    // At a whole pixel of the screen, for a canvas between two of them is moved to one; what it shows is not.
    const [left, top] = [box.left - edge, box.top - edge].map((side) => Math.floor(side * scale) / scale);
    const [width, height] = [box.left + box.width + edge - left, box.top + box.height + edge - top];
    const wanted = `${left} ${top} ${width} ${height} ${scale}`;
    if (canvas.dataset.place !== wanted) {
      canvas.dataset.place = wanted;
      canvas.width = Math.ceil(width * scale);
      canvas.height = Math.ceil(height * scale);
      Object.assign(canvas.style, { left: `${left}px`, top: `${top}px`, width: `${canvas.width / scale}px`, height: `${canvas.height / scale}px` });
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width + 1, height + 1);
    pen.translate(box.left - left, box.top - top);
    pen.miterLimit = 2;
    return pen;
  };
  const drawPlot = (name, traces, layout, ranges, paint) => {
    let pen, box;
    const edge = traces.some((trace) => trace.cliponaxis === false) ? EDGE : 0;
    for (const trace of traces) {
      const [xName, yName] = [nameAxis(trace.xaxis ?? "x"), nameAxis(trace.yaxis ?? "y")];
      const [xAxis, yAxis] = [layout[xName], layout[yName]];
      const under = yAxis.overlaying ? layout[nameAxis(yAxis.overlaying)] : yAxis;
      if (!pen) {
        box = findBox(layout, xAxis, under);
        pen = place(find(name), box, edge);
      }
      const across = makeScale({ ...xAxis, range: ranges[xName] }, box.width, false);
      const up = makeScale({ ...yAxis, range: ranges[yName] }, box.height, true);
      pen.globalAlpha = trace.opacity ?? 1;
      if (trace.type === "image") {
        drawPicture(pen, trace, across, up);
        continue;
      }
      const mode = trace.mode ?? "lines";
      const whole = trace.cliponaxis === false;
      pen.save();
      if (edge) clip(pen, box);
      if (mode.includes("lines")) drawLine(pen, trace, across, up, paint);
      if (whole) pen.restore();
      if (mode.includes("markers")) drawMarks(pen, trace, across, up, paint, whole && box);
      if (!whole) pen.restore();
    }
  };
  return {
    // Traces by plot: those on the lanes over a plot belong to it.
    draw(spec, changed, ranges, paint) {
      const plots = new Map();
      for (const trace of spec.data) {
        if (trace.visible === false || (trace.type !== "image" && !(trace.x && trace.y))) continue;
        const name = trace.xaxis ?? "x";
        if (!plots.has(name)) plots.set(name, []);
        plots.get(name).push(trace);
      }
      for (const name of canvases.keys()) if (!plots.has(name)) { canvases.get(name).remove(); canvases.delete(name); }
      for (const [name, traces] of plots) {
        if (changed === null || traces.some((trace) => changed.has(trace))) drawPlot(name, traces, spec.layout, ranges, paint);
      }
    },
  };
}
