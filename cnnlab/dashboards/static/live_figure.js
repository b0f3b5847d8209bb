// A figure over plotly.js: keeps its numbers, takes in what the kernel sends, and draws it when the page has time.
// While frames follow each other our canvases show what moves over a plotly figure without points; at rest plotly does.

const KINDS = { f: Float32Array, d: Float64Array, i: Int32Array, B: Uint8Array };
const REST = 250; // milliseconds without a frame after which plotly draws the points
const EMPTY = new Float32Array(0);
const RED = "#CC0033"; // of NaN and inf

const isPacked = (value) => value && typeof value === "object" && value.bytes !== undefined && value.type in KINDS;

// Numbers out of a message's bytes, from a place on.
function readNumbers(kind, bytes, from = 0, count = undefined) {
  const Kind = KINDS[kind], size = Kind.BYTES_PER_ELEMENT;
  const many = count ?? bytes.byteLength / size;
  return new Kind(bytes.buffer.slice(bytes.byteOffset + from, bytes.byteOffset + from + many * size));
}

// A copy of what the kernel has packed, with arrays of numbers; a picture's bytes become numbers, too.
function unpack(value) {
  if (isPacked(value)) return readNumbers(value.type, value.bytes);
  if (Array.isArray(value)) return value.map(unpack);
  if (value && typeof value === "object" && !ArrayBuffer.isView(value) && !(value instanceof ArrayBuffer)) {
    return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, unpack(part)]));
  }
  return value;
}

// An array that begins with the first `kept` numbers of another, with room for more at its end.
function grow(old, kept, more) {
  const length = kept + more.length;
  let store = old?.buffer;
  if (!(old instanceof more.constructor) || store.byteLength < length * more.BYTES_PER_ELEMENT || old.byteOffset) {
    store = new ArrayBuffer(Math.max(2 * length, 64) * more.BYTES_PER_ELEMENT);
    if (kept) new more.constructor(store).set(old.subarray(0, kept));
  }
  new more.constructor(store).set(more, kept);
  return new more.constructor(store, 0, length);
}

// The figure that all views of a model show: its numbers, and what has changed since they were drawn.
function makeStore(model, state) {
  const store = { views: new Set(), page: Math.random(), drawn: 0, busy: 0 };
  let waiting = false; // for all there is, after a message that was missed
  const reset = () => {
    waiting = false;
    store.spec = unpack(state.get("spec"));
    store.views.forEach((view) => view.renew());
  };
  const holderOf = (place) => place.slice(0, -1).reduce((holder, name) => (holder[name] ??= {}), store.spec);
  store.take = (message, [bytes]) => {
    if (message.message !== store.spec.message + 1) {
      if (message.message > store.spec.message + 1 && !waiting) {
        waiting = true;
        store.tellState();
      }
      return;
    }
    const changed = new Set();
    let style = false, from = 0;
    const note = (place) => (place[0] === "layout" ? (style = true) : changed.add(store.spec.data[place[1]]));
    for (const entry of message.arrays) {
      const [kind, kept, count] = entry.slice(-3), place = entry.slice(0, -3);
      const holder = holderOf(place), name = place.at(-1);
      const more = readNumbers(kind, bytes, from, count);
      from += more.byteLength;
      holder[name] = grow(holder[name], kept, more);
      note(place);
    }
    for (const [place, value] of message.plain) {
      const holder = holderOf(place), name = place.at(-1);
      if (value === null) delete holder[name];
      else holder[name] = unpack(value);
      note(place);
    }
    store.spec.message = message.message;
    store.spec.moving = message.moving;
    store.views.forEach((view) => view.follow(changed, style));
    if (message.ask) store.answer(message.ask);
  };
  const { send: tell, disconnect } = connect(model);
  store.tell = tell;
  // Tells the kernel which message was the last one taken in, so that it sends all there is if there are later ones.
  store.tellState = () => tell({ have: store.spec.message });
  const send = () => tell({ answer: { drawn: store.drawn, seen: store.isSeen(), page: store.page, busy: store.busy } });
  // Says that a frame is on the screen. A page that draws nothing is there all the same: it answers, too.
  store.answer = (number) => {
    if (!store.views.size) return;
    const answer = () => {
      store.drawn = Math.max(store.drawn, number);
      send();
    };
    store.isSeen() ? requestAnimationFrame(() => setTimeout(answer, 0)) : answer();
  };
  store.tellSight = () => model.get("events").includes("answer") && send();
  store.isSeen = () => !document.hidden && [...store.views].some((view) => view.seen);
  const hear = (message, buffers) => {
    if (message.arrays) store.take(message, buffers);
    if (message.file) download(URL.createObjectURL(new Blob([message.text], { type: "text/csv" })), message.file);
  };
  state.on("msg:custom", hear);
  state.on("change:spec", reset);
  store.close = () => {
    disconnect();
    state.off("msg:custom", hear);
    state.off("change:spec", reset);
  };
  reset();
  return store;
}

// A view of the figure on the page.
function makeView(model, store, element, Plotly) {
  const box = document.createElement("div"), graph = document.createElement("div");
  box.className = "cnnlab cnnlab-live";
  box.append(graph);
  element.append(box);
  const canvases = makeCanvases(box);
  const tools = makePanelTools(model, box, Plotly, () => ({ data: makeTraces(false), layout: makeLayout() }));
  const moves = model.get("moves");
  let drawing = Promise.resolve(); // what plotly has not ended: it must not find its graph purged
  let theme, painter, changed = null, styled = true, coming = 0, resting = 0, revision = 0, drawn = "", closed = false;

  const view = { seen: false };
  const dress = () => {
    const found = readTheme(box);
    if (theme && JSON.stringify(found) === JSON.stringify(theme)) return;
    theme = found;
    painter = makePainter(model.get("dark"), theme);
    view.renew();
  };

  // The layout for plotly: a copy, for plotly writes into it; in the colours of the page.
  const makeLayout = () => {
    const layout = painter.paintAll(structuredClone(store.spec.layout));
    Object.assign(layout, { paper_bgcolor: theme.paper, plot_bgcolor: theme.ground, uirevision: `${layout.uirevision ?? ""} ${revision}` });
    layout.font = { ...layout.font, color: theme.ink };
    for (const [name, axis] of Object.entries(layout)) {
      if (/^[xy]axis\d*$/.test(name) && axis.gridcolor) axis.gridcolor = theme.grid;
    }
    return layout;
  };
  const colourBands = (trace) => {
    const colours = Array.from({ length: trace.layers }, (_, layer) => store.spec.data.find(({ name }) => name === `magnitudes ${layer}`).fillcolor);
    const [red, ...layers] = [RED, ...colours].map((colour) => readColour(painter.paint(colour)));
    paintBands(trace, layers, readColour(theme.ground), readColour(theme.grid), red);
  };
  const makeTraces = (empty) => store.spec.data.map((trace) => {
    if (trace.bands && !empty) colourBands(trace);
    const { picture, bands, every, times, layers, bins, ...rest } = trace;
    if (empty && trace.type === "image") return { ...rest, source: undefined };
    if (empty) return { ...painter.paintAll({ ...rest, x: undefined, y: undefined }), x: EMPTY, y: EMPTY, marker: { ...rest.marker, color: undefined, symbol: undefined } };
    if (picture) rest.source = picture.toDataURL();
    return painter.paintAll(rest);
  });
  const react = (empty, draw = Plotly.react) => {
    styled = false;
    drawn = empty ? "moving" : "resting";
    tools.draw(store.spec.layout.meta);
    drawing = draw(graph, makeTraces(empty), makeLayout(), model.get("config"));
    return drawing;
  };

  // The ranges that the plots show: the user may have zoomed.
  const ranges = new Proxy({}, { get: (_, name) => graph.layout[name]?.range ?? store.spec.layout[name].range });

  const paint = () => {
    coming = 0;
    if (closed) return;
    if (!styled && changed?.size === 0 && drawn === (store.spec.moving ? "moving" : "resting")) return;
    const began = performance.now();
    if (!moves) {
      if (styled || changed === null || changed.size) react(false);
      changed = new Set();
    } else {
      if (styled || drawn !== "moving") {
        react(true);
        changed = null;
      }
      for (const trace of store.spec.data) if (trace.bands && (changed === null || changed.has(trace))) colourBands(trace);
      canvases.draw(store.spec, changed, ranges, painter.paint);
      box.classList.add("cnnlab-moving");
      changed = new Set();
      clearTimeout(resting);
      if (!store.spec.moving) resting = setTimeout(rest, REST);
    }
    store.busy += performance.now() - began;
  };
  const rest = () => {
    if (closed || coming || store.spec.moving) return;
    react(false);
    changed = new Set();
    box.classList.remove("cnnlab-moving");
  };
  const ask = () => {
    if (view.seen && !coming) coming = requestAnimationFrame(paint);
    if (view.seen || !moves || store.spec.moving) return;
    clearTimeout(resting); // out of sight the last frame waits for nobody's eye
    resting = setTimeout(rest, REST);
  };

  view.follow = (traces, style) => {
    styled ||= style;
    if (changed !== null) traces.forEach((trace) => changed.add(trace));
    ask();
  };
  // The canvases follow a zoom at once; plotly itself shows it at rest.
  view.followZoom = () => {
    if (drawn !== "moving") return;
    changed = null;
    ask();
  };
  view.renew = () => {
    styled = true;
    changed = null;
    ask();
  };
  view.unzoom = () => {
    revision += 1;
    view.renew();
  };

  let onScreen = false;
  const look = () => {
    const seen = onScreen && !document.hidden;
    if (seen === view.seen) return;
    view.seen = seen;
    ask();
    store.tellSight();
  };
  const eye = new IntersectionObserver((entries) => {
    onScreen = entries.at(-1).isIntersecting;
    look();
  });
  let width = 0;
  const ruler = new ResizeObserver(() => {
    const wide = Math.floor(element.clientWidth);
    if (!wide || wide === width) return;
    if (!width) dress(); // now it stands in the page: before, nothing has told it of a theme
    width = wide;
    if (model.get("events").includes("width")) store.tell({ width: wide });
    else if (graph.layout) drawing = Promise.all([drawing, Plotly.Plots.resize(graph)]);
  });

  const begin = async () => {
    dress();
    const first = store.spec.message;
    await react(false, Plotly.newPlot);
    changed = new Set();
    listen(model, graph, view, store.tell);
    eye.observe(box);
    ruler.observe(element);
    document.addEventListener("visibilitychange", look);
    watchers.add(dress);
    store.views.add(view);
    store.tellState();
    if (store.spec.moving || store.spec.message !== first) view.renew(); // what came while plotly drew
  };
  view.close = () => {
    closed = true;
    store.views.delete(view);
    watchers.delete(dress);
    document.removeEventListener("visibilitychange", look);
    eye.disconnect();
    ruler.disconnect();
    clearTimeout(resting);
    cancelAnimationFrame(coming);
    tools.close();
    const end = () => {
      Plotly.purge(graph);
      box.remove();
    };
    drawing.then(end, end);
  };
  return { view, begin };
}

// Where an event lies on the axes of a point. Plotly looks for the point at most every 50 ms: after a quick move of the
// pointer it names the one that was there before.
function findPlace(graph, { xaxis, yaxis }, { clientX, clientY }) {
  const { left, top } = graph.getBoundingClientRect();
  return { x: xaxis.p2d(clientX - left - xaxis._offset), y: yaxis.p2d(clientY - top - yaxis._offset) };
}

// Tells the kernel of what it has asked to hear, and gives axes their own ranges back at a double click.
function listen(model, graph, view, tell) {
  const events = model.get("events");
  graph.on("plotly_doubleclick", () => view.unzoom());
  graph.on("plotly_relayout", () => view.followZoom());
  graph.on("plotly_relayouting", () => view.followZoom());
  if (events.includes("click")) {
    graph.on("plotly_click", ({ points: [point], event }) => tell({ click: { trace: point.curveNumber, ...findPlace(graph, point, event) } }));
  }
  if (events.includes("zoom")) {
    graph.on("plotly_relayout", (change) => {
      const ends = ["xaxis.range[0]", "xaxis.range[1]", "yaxis.range[0]", "yaxis.range[1]"].map((name) => change[name]);
      if (ends.some((end) => end === undefined)) return;
      tell({ zoom: ends });
      view.unzoom(); // what was boxed is computed finer, and is then the whole
    });
  }
}

export default () => {
  let store, plotly;
  return {
    async initialize({ model }) {
      store = makeStore(model, await findModel(model, "state"));
      plotly = findModel(model, "plotly").then(loadPlotly);
      return store.close;
    },
    render({ model, el }) {
      let made, closed = false;
      plotly.then(async (Plotly) => {
        if (closed) return;
        made = makeView(model, store, el, Plotly);
        await made.begin();
        if (closed) made.view.close();
      });
      return () => {
        closed = true;
        made?.view.close();
      };
    },
  };
};
