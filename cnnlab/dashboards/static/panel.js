// The three parts of the dashboard beside the plots: header (state and transport), controls, strip (table and pictures).
// Python sends one dictionary a frame in `state`; the user's actions go back as messages. Native inputs only, so that
// keyboard and screen readers work as everywhere.

// Writes a text that is a new one: whatever is written is laid out and painted again.
const say = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
};

const shown = (value, whole = false) => {
  if (value === null || value === undefined) return "all";
  if (value === 0 || whole) return String(value);
  const size = Math.abs(value);
  if (size >= 1e-3 && size < 1e5) return String(Number(value.toPrecision(size < 1 ? 4 : 5)));
  return Number(value.toPrecision(4)).toExponential().replace("e+", "e");
};

// Characters of the line of words that fit at 1280 pixels and scale 1; a longer line is set in smaller type.
const ROOM = 104;
const PAGE = 1098; // pixels of the dashboard there

function header({ model, el }) {
  const send = (message) => model.send(message);
  const button = (label, title, action, kind = "") =>
    element("button", { type: "button", class: `cnnlab-button ${kind}`, title, "aria-label": title, onclick: action }, label);
  const words = element("span", {});
  const line = element("div", { class: "cnnlab-line", role: "status", "aria-live": "polite" }, words);
  const why = button("Why?", "Find out why, and try remedies on copies of the run", () => send({ do: "explain" }), "cnnlab-why");
  const forecast = button("Show forecast", "Show forecast, critical learning rate and early warnings", () => send({ do: "show_forecast" }), "cnnlab-forecast");
  const play = button("▶ Play", "Play", () => send({ do: model.get("state").training ? "pause" : "play" }), "cnnlab-play");
  const many = element("input", { type: "number", min: 1, max: 1000000, value: 5, class: "cnnlab-number", "aria-label": "How many updates to step" });
  const choose = (label, options, action) =>
    element("select", { class: "cnnlab-select", "aria-label": label, title: label, onchange: (event) => action(event.target.value) },
      ...options.map(([value, text]) => element("option", { value }, text)));
  const preset = choose("Preset", model.get("presets").map((name) => [name, name.replaceAll("_", " ")]), (value) => send({ preset: value }));
  const altered = element("option", { value: "", hidden: true });
  preset.append(altered);
  preset.title = "Preset; * where settings have been changed since";
  const pace = choose("Speed", model.get("paces"), (value) => send({ pace: value }));
  const counter = element("span", { class: "cnnlab-counter" });
  const rate = element("span", { class: "cnnlab-rate" });
  const bar = element("progress", { max: 1, value: 0, class: "cnnlab-bar", "aria-label": "Progress" });
  const problem = element("div", { class: "cnnlab-problem", role: "alert" });
  const scrubber = element("input", { type: "range", min: 0, max: 0, step: 1, class: "cnnlab-slider cnnlab-scrubber", "aria-label": "Update shown" });
  const look = (step) => {
    scrubber.value = step;
    send({ look: Number(scrubber.value) });
  };
  scrubber.addEventListener("input", () => look(scrubber.value));
  const offer = element("div", { class: "cnnlab-offer", role: "status", hidden: true }, element("span", {}),
    button("Bring it back", "Go on with the interrupted run", () => send({ do: "bring_back" })),
    button("Leave it", "Forget the interrupted run", () => send({ do: "leave_behind" })));
  const shownStep = element("span", { class: "cnnlab-counter cnnlab-shown" });
  const root = element("div", { class: "cnnlab cnnlab-header" }, element("div", { class: "cnnlab-headline" }, line, forecast, why),
    element("div", { class: "cnnlab-transport" },
      play,
      button("Step", "One update", () => send({ do: "step", updates: 1 })),
      button("Step by", "Step by this many updates", () => send({ do: "step", updates: Number(many.value) })), many,
      button("↺ Reset", "Reset to the same start", () => send({ do: "reset" })),
      button("New seed", "Start again with a new seed", () => send({ do: "new_seed" })),
      element("label", { class: "cnnlab-labelled" }, "Preset", preset),
      element("label", { class: "cnnlab-labelled" }, "Speed", pace),
      bar, counter, rate),
    element("div", { class: "cnnlab-transport cnnlab-film" },
      element("span", { class: "cnnlab-labelled" }, "Look back"),
      button("◀", "Back by one update", () => look(Number(scrubber.value) - 1)), scrubber,
      button("▶", "Forward by one update", () => look(Number(scrubber.value) + 1)), shownStep,
      button("Before the explosion", "Look at the last update after which all was well", () => send({ do: "before_explosion" })),
      button("Fork here", "Begin a new branch after the update shown", () => send({ do: "fork" })),
      button("Rewind to here", "Take the run back to the update shown", () => send({ do: "rewind" }))),
    offer, problem);
  el.append(root);

  let width = PAGE;
  const fit = () => {
    const room = (ROOM * width) / PAGE / model.get("scale");
    words.style.fontSize = `${Math.min(1, room / words.textContent.length)}em`;
  };
  const draw = () => {
    const state = model.get("state");
    offer.hidden = !state.offer;
    say(offer.firstChild, state.offer);
    root.style.setProperty("--cnnlab-scale", model.get("scale"));
    say(words, state.line);
    fit();
    line.title = state.line;
    line.dataset.tone = state.tone;
    why.hidden = !state.trouble;
    if (!state.hidden && document.activeElement === forecast) play.focus();
    forecast.hidden = !state.hidden;
    say(play, state.training ? "❚❚ Pause" : "▶ Play");
    play.setAttribute("aria-label", state.training ? "Pause" : "Play");
    play.title = state.training ? "Pause" : `Play: train ${state.length} updates`;
    say(counter, `epoch ${state.epoch} · update ${state.step} of ${state.goal}`);
    say(rate, state.training ? `${state.rate} updates/s` : "paused");
    rate.title = state.training ? state.watching : "";
    bar.value = state.progress;
    scrubber.max = state.trained;
    if (document.activeElement !== scrubber || state.training) scrubber.value = state.step;
    scrubber.setAttribute("aria-valuetext", `update ${state.step}`);
    scrubber.style.setProperty("--cnnlab-filled", `${state.trained ? (100 * state.step) / state.trained : 0}%`);
    say(shownStep, state.step < state.trained ? `as after update ${state.step}` : "the present");
    say(altered, `${state.preset.replaceAll("_", " ")} *`);
    if (document.activeElement !== preset || preset.value === state.preset) preset.value = state.changed ? "" : state.preset;
    if (document.activeElement !== pace) pace.value = state.pace;
    say(problem, state.problem || "");
  };
  const observer = new ResizeObserver(() => {
    if (!root.clientWidth) return;
    width = root.clientWidth;
    fit();
  });
  observer.observe(root);
  model.on("change:state", draw);
  draw();
  return () => {
    observer.disconnect();
    model.off("change:state", draw);
  };
}

function controls({ model, el }) {
  const rows = {};
  // What a hand has set shows until the kernel has heard of it, however long that takes: a frame from before would
  // take a slider back under the hand, and the next key would move it from there. After five seconds, what is in force.
  const view = Math.random();
  const waiting = {};
  let hands = 0;
  let settled = 0;
  const send = (name, value) => {
    waiting[name] = hands += 1;
    clearTimeout(settled);
    settled = setTimeout(() => draw(Infinity), 5000);
    model.send({ set: { [name]: value }, hand: [view, hands] });
  };

  const number = (name, limit) => {
    // Slider positions: 20 a decade on a logarithmic one, 100 on a linear one; one more at the left for 0, at the right for all.
    const [low, high] = limit.slider;
    const zero = limit.logarithmic && limit.zero ? 1 : 0;
    const count = limit.logarithmic ? Math.round(Math.log10(high / low) * 20) : limit.whole ? high - low : 100;
    const last = count + zero + (limit.optional ? 1 : 0);
    const valueAt = (position) => {
      if (limit.optional && position === last) return null;
      if (zero && position === 0) return 0;
      const share = (position - zero) / count;
      if (!limit.logarithmic) return limit.whole ? low + position : Number((low + share * (high - low)).toPrecision(6));
      const value = Number((low * 10 ** ((position - zero) / 20)).toPrecision(3));
      return limit.whole ? Math.round(value) : value;
    };
    const positionOf = (value) => {
      if (value === null) return last;
      if (zero && value === 0) return 0;
      const share = limit.logarithmic ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
      return Math.round(zero + Math.min(Math.max(share, 0), 1) * count);
    };
    const slider = element("input", { type: "range", min: 0, max: last, step: 1, class: "cnnlab-slider", "aria-label": limit.label });
    const box = element("input", { type: "text", inputmode: "decimal", class: "cnnlab-box", "aria-label": `${limit.label}, value`, spellcheck: "false" });
    const mark = (value) => {
      slider.setAttribute("aria-valuetext", shown(value, limit.whole));
      box.title = value === null ? "all" : String(value);
      slider.style.setProperty("--cnnlab-filled", `${(100 * slider.value) / last}%`);
    };
    slider.addEventListener("input", () => {
      const value = valueAt(Number(slider.value));
      box.value = shown(value, limit.whole);
      mark(value);
      send(name, value);
    });
    const commit = () => {
      const text = box.value.trim();
      if (text === shown(rows[name].value, limit.whole) && !waiting[name]) return;
      send(name, limit.optional && text === "all" ? null : text);
    };
    box.addEventListener("change", commit);
    rows[name] = {
      show: (value, answered) => {
        rows[name].value = value;
        if (document.activeElement !== box || answered) box.value = shown(value, limit.whole);
        slider.value = positionOf(value);
        mark(value);
      },
    };
    const row = element("div", { class: "cnnlab-row", title: limit.meaning }, element("span", { class: "cnnlab-name" }, limit.label), slider, box);
    if (name !== "learning_rate") return row;
    place = (value) => (100 * Math.min(Math.max(Math.log(value / low) / Math.log(high / low), 0), 1));
    return element("div", {}, row, ...(model.get("schedules").length ? [band] : []));
  };

  // Under the learning rate's slider: green up to the critical rate, amber up to ten times that, red beyond.
  let place = () => 0;
  const colours = element("div", { class: "cnnlab-colours", "aria-hidden": "true" });
  const words = element("span", { class: "cnnlab-critical", role: "status" });
  const schedule = element("select", { class: "cnnlab-select cnnlab-schedule", "aria-label": "Schedule of the learning rate",
    title: "How the learning rate goes on", onchange: () => model.send({ schedule: schedule.value }) },
    ...model.get("schedules").map((name) => element("option", { value: name }, name.replaceAll("_", " "))));
  const band = element("div", { class: "cnnlab-band" }, schedule, colours, words);
  const drawBand = (stability) => {
    const { edges } = stability;
    colours.dataset.edges = edges ? edges.join(" ") : "";
    colours.classList.toggle("cnnlab-unknown", !edges);
    if (edges) {
      colours.style.setProperty("--cnnlab-critical", `${place(edges[0])}%`);
      colours.style.setProperty("--cnnlab-beyond", `${place(edges[1])}%`);
    }
    say(words, stability.said);
    band.title = stability.title;
  };

  const choice = (name, limit) => {
    const select = element("select", { class: "cnnlab-select", "aria-label": limit.label, onchange: () => send(name, select.value) },
      ...limit.options.map((option) => element("option", { value: option }, option.replaceAll("_", " "))));
    rows[name] = { show: (value) => (select.value = value) };
    return element("label", { class: "cnnlab-choice", title: limit.meaning }, element("span", { class: "cnnlab-name" }, limit.label), select);
  };

  const group = (title, names) => {
    const limits = model.get("limits");
    const numbers = names.filter((name) => limits[name].kind === "number").map((name) => number(name, limits[name]));
    const choices = names.filter((name) => limits[name].kind === "choice").map((name) => choice(name, limits[name]));
    return element("fieldset", { class: "cnnlab-group" }, element("legend", {}, title), ...numbers, element("div", { class: "cnnlab-choices" }, ...choices));
  };
  const problem = element("div", { class: "cnnlab-problem", role: "alert" });
  const note = element("div", { class: "cnnlab-note", role: "status" });
  const tree = element("ul", { class: "cnnlab-tree" });
  const branches = element("fieldset", { class: "cnnlab-group" }, element("legend", {}, "Branches"), tree);
  const grow = (branch, several) => {
    const chip = element("span", { class: "cnnlab-chip", style: `background: ${branch.colour}` });
    const choose = element("button", { type: "button", class: "cnnlab-branch", "aria-pressed": String(branch.present), title: branch.label,
      onclick: () => model.send({ do: "choose_branch", branch: branch.number }) }, chip, `${branch.number}  ${branch.label}`);
    const drop = element("button", { type: "button", class: "cnnlab-drop", "aria-label": `Delete branch ${branch.number}`, title: "Delete this branch",
      onclick: () => model.send({ do: "delete_branch", branch: branch.number }) }, "✕");
    return element("li", { style: `padding-left: ${Math.min(branch.depth, 5) * 0.9}em` }, choose, ...(several ? [drop] : []));
  };
  const forks = model.get("state").branches ? [branches] : []; // a loop of the user's own has none
  const root = element("div", { class: "cnnlab cnnlab-controls" }, ...model.get("groups").map(([title, names]) => group(title, names)), problem, note, ...forks);
  el.append(root);

  const draw = (heard) => {
    root.style.setProperty("--cnnlab-scale", model.get("scale"));
    const state = model.get("state");
    for (const [name, row] of Object.entries(rows)) {
      if (waiting[name] > heard) continue;
      row.show(state.values[name], name in waiting);
      delete waiting[name];
    }
    say(problem, state.problem || "");
    say(note, state.note || "");
    if (!state.branches) return;
    drawBand(state.band);
    if (document.activeElement !== schedule) schedule.value = state.schedule;
    const drawn = JSON.stringify(state.branches);
    if (tree.dataset.drawn !== drawn) {
      tree.dataset.drawn = drawn;
      tree.replaceChildren(...state.branches.map((branch) => grow(branch, state.branches.length > 1)));
    }
  };
  const follow = () => {
    const state = model.get("state");
    const [by, hand] = state.heard;
    draw(by === view ? hand : 0);
  };
  model.on("change:state", follow);
  follow();
  return () => {
    clearTimeout(settled);
    model.off("change:state", follow);
  };
}

function strip({ model, el }) {
  const table = element("table", { class: "cnnlab-table" });
  const picture = (label) => element("img", { alt: label, class: "cnnlab-picture" });
  const kernels = picture("Kernels of the first layer");
  const patches = picture("Training patches");
  const titled = (title, content, kind) => element("figure", { class: `cnnlab-figure ${kind}` }, element("figcaption", {}, title), content);
  const kernelsFigure = titled("", kernels, "cnnlab-kernels");
  const patchesFigure = titled("", patches, "cnnlab-patches");
  const root = element("div", { class: "cnnlab cnnlab-strip" },
    titled("Watched weights, update by update", table, "cnnlab-watched"), kernelsFigure, patchesFigure);
  el.append(root);
  const fill = (figure, image, source, title) => {
    figure.hidden = !source;
    if (source && image.getAttribute("src") !== source) image.src = source;
    say(figure.firstChild, title);
  };
  const draw = () => {
    const state = model.get("state");
    root.style.setProperty("--cnnlab-scale", model.get("scale"));
    const shape = JSON.stringify([state.columns.length, state.rows.map(([name, colour]) => [name, colour])]);
    if (shape !== table.dataset.shape) {
      table.dataset.shape = shape;
      const head = element("tr", {}, element("th", { scope: "col" }, ""), ...state.columns.map(() => element("th", { scope: "col" })));
      const body = state.rows.map(([name, colour, cells]) => element("tr", {},
        element("th", { scope: "row", style: `color: ${colour}`, title: name }, name), ...cells.map(() => element("td"))));
      table.replaceChildren(element("thead", {}, head), element("tbody", {}, ...body));
    }
    state.columns.forEach((name, place) => say(table.tHead.rows[0].cells[place + 1], name));
    state.rows.forEach(([, , cells], row) => cells.forEach((cell, place) => {
      const shown = table.tBodies[0].rows[row].cells[place + 1];
      if (shown.textContent === cell) return;
      shown.textContent = cell;
      shown.className = /nan|inf/.test(cell) ? "cnnlab-lost" : "";
    }));
    fill(kernelsFigure, kernels, state.kernels, state.kernels_title);
    fill(patchesFigure, patches, model.get("patches"), state.patches_title);
  };
  model.on("change:state", draw);
  model.on("change:patches", draw);
  draw();
  return () => {
    model.off("change:state", draw);
    model.off("change:patches", draw);
  };
}

// JupyterLab takes plain keys for its own, such as the arrows that move a slider: those pressed here stay here.
const keep = (event) => {
  if (!event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation();
};

const parts = { header, controls, strip };
export default {
  render: async ({ model, el }) => {
    el.addEventListener("keydown", keep);
    return parts[model.get("part")]({ model: await withTexts(model), el });
  },
};
