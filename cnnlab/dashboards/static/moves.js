// Moves curves, their markers and pictures of a figure that is drawn, by writing into its SVG and nothing else.
// Plotly settles the defaults of the whole figure for each of its own frames, which takes most of a frame's time.

const NOWHERE = "M0,0Z";

// Write what a frame of plotly's animate says where that can be done; true if nothing is left of the frame.
function moveCurves(graph, frame) {
  const left = frame.data.map((_, place) => place).filter(
    (place) => !writeTrace(graph, frame.traces[place], frame.data[place]),
  );
  frame.data = left.map((place) => frame.data[place]);
  frame.traces = left.map((place) => frame.traces[place]);
  return left.length === 0;
}

function writeTrace(graph, number, moved) {
  const full = graph._fullData?.[number];
  const node = full && graph.querySelector(`.trace${full.uid}`);
  const axes = full && ["x", "y"].map((letter) => graph._fullLayout[full[`${letter}axis`].replace(letter, `${letter}axis`)]);
  if (full?.type === "image") return writePicture(graph, number, moved, axes);
  if (!node) return false;
  const trace = { ...graph.data[number], ...moved };
  const at = positions(trace, axes);
  const written = (!full.mode.includes("lines") || writeLine(node, full, at))
    && (!full.mode.includes("markers") || writeMarkers(node, full, at));
  if (written) Object.assign(graph.data[number], moved);
  return written;
}

// Pixels of each point, to a tenth; NaN where there is none.
function positions({ x, y }, [xAxis, yAxis]) {
  return Array.from({ length: Math.min(x.length, y.length) }, (_, place) => [
    Math.round(xAxis.c2p(x[place]) * 10) / 10, Math.round(yAxis.c2p(y[place]) * 10) / 10,
  ]);
}

const isThere = ([x, y]) => Number.isFinite(x) && Number.isFinite(y);

function writeLine(node, full, at) {
  const [line, ...others] = node.querySelectorAll(".js-line");
  const fill = node.querySelector(".js-fill");
  if (!line || (full.fill !== "none" && !fill)) return false;
  let path = "", pen = "M";
  for (const point of at) {
    if (isThere(point)) {
      path += pen + point;
      pen = "L";
    } else if (!full.connectgaps) {
      pen = "M";
    }
  }
  line.setAttribute("d", path || NOWHERE);
  others.forEach((other) => other.setAttribute("d", NOWHERE));
  if (full.fill !== "none") fill.setAttribute("d", path ? path + "Z" : NOWHERE);
  return true;
}

function writeMarkers(node, { marker }, at) {
  const box = node.querySelector(".points"), points = [...box.children], there = at.filter(isThere);
  if (!points.length || typeof marker.symbol !== "string" || typeof marker.color !== "string") return false;
  while (points.length < there.length) points.push(box.appendChild(points[0].cloneNode()));
  points.splice(there.length).forEach((point) => point.remove());
  points.forEach((point, place) => point.setAttribute("transform", `translate(${there[place]})`));
  return true;
}

function newImage() {
  const image = document.createElementNS("http://www.w3.org/2000/svg", "image");
  image.setAttribute("preserveAspectRatio", "none");
  image.setAttribute("style", "image-rendering: pixelated");
  return image;
}

// The figure's one picture, whose `meta` is its size: columns, rows.
function writePicture(graph, number, moved, [xAxis, yAxis]) {
  const box = graph.querySelector(".imagelayer .im");
  if (!box) return true; // comes with the next whole figure, as everything that moved does
  const image = box.querySelector("image") ?? box.appendChild(newImage()); // plotly takes away one of no width
  const { source, x0, dx, y0, dy, meta: [columns, rows] } = Object.assign(graph.data[number], moved);
  const [left, right] = [x0 - dx / 2, x0 + (columns - 0.5) * dx].map((x) => Math.round(xAxis.c2p(x)));
  const [top, bottom] = [y0 - dy / 2, y0 + (rows - 0.5) * dy].map((y) => Math.round(yAxis.c2p(y)));
  const place = { x: left, y: top, width: right - left, height: bottom - top };
  Object.entries(place).forEach(([name, value]) => image.setAttribute(name, value));
  image.setAttributeNS("http://www.w3.org/1999/xlink", "href", source);
  return true;
}
