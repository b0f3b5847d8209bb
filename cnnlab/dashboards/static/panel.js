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
const SMALLEST = 0.82; // share of its size down to which the type goes; a line that is still too long is broken

// A `?` that opens a few sentences and a link; Escape, or a click elsewhere, closes them.
const helper = (explanation) => {
  const { title, text, lab, lab_title: labTitle } = explanation;
  const link = linkLab(lab, labTitle);
  const card = element("div", { class: "cnnlab-popover", popover: "auto", role: "dialog", "aria-label": title }, element("b", {}, title), element("p", {}, text), link);
  const button = element("button", { type: "button", class: "cnnlab-help", "aria-label": `About: ${title}`, "aria-haspopup": "dialog", title: `About: ${title}`, onclick: () => card.togglePopover({ source: button }) }, "?");
  placePopover(card, button);
  return element("span", { class: "cnnlab-helper" }, button, card);
};

const KEYS = "Space play, S step, ← back, → forward, B before the explosion";
const TYPING = "input:not([type=range], [type=checkbox]), textarea, select, [contenteditable]";

// Hears keys while a dashboard for a projector has the focus, before JupyterLab and the buttons do. Boxes keep theirs, a
// slider its arrows, until the pointer lets go of it: the focus is then the dashboard's, as after a click anywhere.
function hearKeys(root, actions) {
  const board = () => root.closest(".cnnlab-present");
  const hear = (event) => {
    const key = event.key.toLowerCase(), { target } = event;
    if (!(key in actions) || !board()?.contains(target) || target.matches(TYPING)) return;
    if (event.ctrlKey || event.metaKey || event.altKey || (key.startsWith("arrow") && target.matches("[type=range]"))) return;
    event.stopPropagation();
    event.preventDefault();
    if (event.type === "keydown" && (key !== " " || !event.repeat)) actions[key]();
  };
  const settle = ({ type, target }) => {
    if (!board()?.contains(target) || target.matches(TYPING) || target.closest("button, a, summary")) return;
    if (type === "pointerdown" && target.matches("[type=range]")) return;
    board().tabIndex = -1;
    board().focus({ preventScroll: true });
  };
  const heard = { keydown: hear, keyup: hear, pointerdown: settle, pointerup: settle };
  for (const [name, listener] of Object.entries(heard)) window.addEventListener(name, listener, true);
  return () => Object.entries(heard).forEach(([name, listener]) => window.removeEventListener(name, listener, true));
}

function header({ model, el }) {
  const button = (label, title, action, kind = "") =>
    element("button", { type: "button", class: `cnnlab-button ${kind}`, title, "aria-label": title, onclick: action }, label);
  const help = (name) => helper(model.get("explanations")[name]);
  const words = element("span", {});
  const line = element("div", { class: "cnnlab-line", role: "status", "aria-live": "polite" }, words);
  const next = element("div", { class: "cnnlab-next", role: "status" });
  const why = button("Why?", "Find out why, and try remedies on copies of the run", () => send({ do: "explain" }), "cnnlab-why");
  const forecast = button("Show forecast", "Show forecast, critical learning rate and early warnings", () => send({ do: "show_forecast" }), "cnnlab-forecast");
  const play = button("▶ Play", "Play", () => send({ do: play.dataset.training ? "pause" : "play" }), "cnnlab-play");
  const mistake = Math.random().toString(36).slice(2);
  const many = element("input", { type: "number", min: 1, max: 1000000, value: 5, class: "cnnlab-number", "aria-label": "How many updates to step", "aria-describedby": `cnnlab-${mistake}` });
  const refused = element("div", { class: "cnnlab-refused", role: "alert", id: `cnnlab-${mistake}` });
  const choose = (label, options, action) =>
    element("select", { class: "cnnlab-select", "aria-label": label, title: label, onchange: (event) => action(event.target.value) },
      ...options.map(([value, text]) => element("option", { value }, text)));
  const presets = Object.fromEntries(model.get("presets"));
  const preset = choose("Preset", model.get("presets"), (value) => send({ preset: value }));
  const altered = element("option", { value: "", hidden: true });
  preset.append(altered);
  preset.title = "Preset; * where settings have been changed since";
  const pace = choose("Speed", model.get("paces"), (value) => send({ pace: value }));
  const stop = element("input", { type: "checkbox", role: "switch", class: "cnnlab-switch", onchange: () => send({ stop_at_nan: stop.checked }) });
  const counter = element("span", { class: "cnnlab-counter" });
  const rate = element("span", { class: "cnnlab-rate" });
  const bar = element("progress", { max: 1, value: 0, class: "cnnlab-bar", "aria-label": "Progress" });
  const problem = element("div", { class: "cnnlab-problem", role: "alert" });
  const scrubber = element("input", { type: "range", min: 0, max: 0, step: 1, class: "cnnlab-slider cnnlab-scrubber", "aria-label": "Update shown", title: "Look back: show the run as it was after an earlier update" });
  const look = (step) => {
    scrubber.value = step;
    send({ look: Number(scrubber.value) });
  };
  scrubber.addEventListener("input", () => look(scrubber.value));
  const offer = element("div", { class: "cnnlab-offer", role: "status", hidden: true }, element("span", {}),
    button("Bring it back", "Go on with the interrupted run", () => send({ do: "bring_back" })),
    button("Leave it", "Forget the interrupted run", () => send({ do: "leave_behind" })));
  const shownStep = element("span", { class: "cnnlab-counter cnnlab-shown" });
  const root = element("div", { class: "cnnlab cnnlab-header" }, element("div", { class: "cnnlab-headline" }, line, forecast, why), next,
    element("div", { class: "cnnlab-transport" },
      play,
      button("Step", "One update", () => send({ do: "step", updates: 1 })),
      element("span", { class: "cnnlab-joined cnnlab-seldom" },
        button("Step by", "Step by this many updates", () => send({ do: "step", updates: Number(many.value) })), many),
      button("↺ Reset", "Reset to the same start", () => send({ do: "reset" }), "cnnlab-seldom"),
      button("New seed", "Start again with a new seed", () => send({ do: "new_seed" }), "cnnlab-seldom"),
      element("label", { class: "cnnlab-labelled cnnlab-seldom" }, "Preset", preset),
      element("label", { class: "cnnlab-labelled cnnlab-seldom" }, "Speed", pace),
      element("label", { class: "cnnlab-labelled cnnlab-seldom", title: "Play stops by itself two updates after the cost or a weight is NaN or inf" }, stop, "stop at NaN"),
      help("transport")),
    refused,
    element("div", { class: "cnnlab-transport cnnlab-film" },
      counter, rate,
      element("span", { class: "cnnlab-joined cnnlab-looking" },
        button("◀", "Back by one update", () => look(Number(scrubber.value) - 1)), scrubber,
        button("▶", "Forward by one update", () => look(Number(scrubber.value) + 1))), shownStep,
      button("Before the explosion", "Look at the last update after which all was well", () => send({ do: "before_explosion" })),
      button("Fork here", "Begin a new branch after the update shown", () => send({ do: "fork" }), "cnnlab-seldom"),
      button("Rewind to here", "Take the run back to the update shown", () => send({ do: "rewind" }), "cnnlab-seldom"),
      help("look_back"),
      button("All controls", "Show all controls and plots", () => {
        send({ present: false });
        play.focus();
      }, "cnnlab-leave")),
    element("div", { class: "cnnlab-keys" }, KEYS), offer, problem, bar);
  el.append(root);

  const forget = hearKeys(root, {
    " ": () => play.click(),
    s: () => send({ do: "step", updates: 1 }),
    arrowleft: () => look(Number(scrubber.value) - 1),
    arrowright: () => look(Number(scrubber.value) + 1),
    b: () => send({ do: "before_explosion" }),
  });
  let width = PAGE;
  let ended = "";
  const { send, disconnect, keepOff } = connect(model, root, () => {
    offer.hidden = true;
    say(next, "");
    say(rate, "ended");
    say(problem, ended);
  });
  const fit = () => {
    const room = (ROOM * width) / PAGE / model.get("scale");
    words.style.fontSize = `${Math.max(SMALLEST, Math.min(1, room / words.textContent.length))}em`;
  };
  const draw = keepOff(() => {
    const state = model.get("state");
    ended = state.ended;
    offer.hidden = !state.offer;
    say(offer.firstChild, state.offer);
    root.style.setProperty("--cnnlab-scale", model.get("scale"));
    say(words, state.line);
    say(next, state.next);
    fit();
    line.title = state.line;
    line.dataset.tone = state.tone;
    why.hidden = !state.trouble;
    if (!state.hidden && document.activeElement === forecast) play.focus();
    forecast.hidden = !state.hidden;
    play.dataset.training = state.training ? "true" : "";
    say(play, state.training ? "❚❚ Pause" : "▶ Play");
    play.setAttribute("aria-label", state.training ? "Pause" : "Play");
    play.title = state.training ? "Pause" : `Play: train ${state.length} updates`;
    stop.checked = state.stop_at_nan;
    say(counter, `epoch ${state.epoch} of ${state.epochs} · update ${state.step} of ${state.goal}`);
    // As wide as its longest text: the slider beside it must not move under the hand.
    counter.style.minWidth = `${Math.ceil(0.79 * `epoch ${state.epochs} of ${state.epochs} · update ${state.goal} of ${state.goal}`.length)}ch`;
    say(rate, state.training ? `${state.rate} updates/s` : "paused");
    rate.title = state.training ? state.watching : "";
    bar.value = state.progress;
    scrubber.max = state.trained;
    if (document.activeElement !== scrubber || state.training) scrubber.value = state.step;
    scrubber.setAttribute("aria-valuetext", `update ${state.step}`);
    scrubber.style.setProperty("--cnnlab-filled", `${state.trained ? (100 * state.step) / state.trained : 0}%`);
    say(shownStep, state.step < state.trained ? `as after update ${state.step}` : "the present");
    say(altered, `${presets[state.preset]} *`);
    if (document.activeElement !== preset || preset.value === state.preset) preset.value = state.changed ? "" : state.preset;
    if (document.activeElement !== pace) pace.value = state.pace;
    say(problem, state.problem || "");
    say(refused, state.refused);
    many.setAttribute("aria-invalid", String(state.refused !== ""));
  });
  const observer = new ResizeObserver(() => {
    if (!root.clientWidth) return;
    width = root.clientWidth;
    fit();
  });
  observer.observe(root);
  model.on("change:state", draw);
  draw();
  return () => {
    forget();
    observer.disconnect();
    disconnect();
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
  const turn = (name, value) => {
    waiting[name] = hands += 1;
    clearTimeout(settled);
    settled = setTimeout(() => draw(Infinity), 5000);
    send({ set: { [name]: value }, hand: [view, hands] });
  };

  // The place right below a field for the sentence that says why its value was refused.
  const refusal = (name, ...inputs) => {
    const said = element("div", { class: "cnnlab-refused", role: "alert", id: `cnnlab-${String(view).slice(2)}-${name}` });
    inputs.forEach((input) => input.setAttribute("aria-describedby", said.id));
    const show = (sentence) => {
      say(said, sentence);
      inputs.forEach((input) => input.setAttribute("aria-invalid", String(sentence !== "")));
    };
    return { said, show };
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
      turn(name, value);
    });
    const commit = () => {
      const text = box.value.trim();
      if (text === shown(rows[name].value, limit.whole) && !waiting[name]) return;
      turn(name, limit.optional && text === "all" ? null : text);
    };
    box.addEventListener("change", commit);
    const mistake = refusal(name, slider, box);
    rows[name] = {
      mistake,
      show: (value, answered) => {
        rows[name].value = value;
        if (document.activeElement !== box || answered) box.value = shown(value, limit.whole);
        slider.value = positionOf(value);
        mark(value);
      },
    };
    const main = name === "learning_rate";
    const row = element("div", { class: `cnnlab-row${main ? " cnnlab-main" : ""}`, title: limit.meaning },
      element("span", { class: "cnnlab-name" }, limit.label), helper(limit.explanation), slider, box);
    if (main) place = (value) => (100 * Math.min(Math.max(Math.log(value / low) / Math.log(high / low), 0), 1));
    return element("div", { class: "cnnlab-field" }, row, mistake.said, ...(main && model.get("schedules").length ? [band, schedule.mistake.said] : []));
  };

  // Under the learning rate's slider: green up to the critical rate, amber up to ten times that, red beyond.
  let place = () => 0;
  const colours = element("div", { class: "cnnlab-colours", "aria-hidden": "true" });
  const words = element("span", { class: "cnnlab-critical", role: "status" });
  const course = element("select", { class: "cnnlab-select cnnlab-schedule", "aria-label": "Schedule of the learning rate",
    title: "How the learning rate goes on", onchange: () => send({ schedule: course.value }) },
    ...model.get("schedules").map((name) => element("option", { value: name }, name.replaceAll("_", " "))));
  const schedule = { mistake: refusal("schedule", course) };
  const band = element("div", { class: "cnnlab-band" }, colours, course, helper(model.get("explanations").schedule), words);
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
    const select = element("select", { class: "cnnlab-select", "aria-label": limit.label, onchange: () => turn(name, select.value) },
      ...limit.options.map((option) => element("option", { value: option }, option.replaceAll("_", " "))));
    const mistake = refusal(name, select);
    const other = element("option", { hidden: true }); // a number that is none of those offered
    select.append(other);
    const [field, needed] = limit.needs;
    rows[name] = {
      mistake,
      show: (value) => {
        if (!limit.options.includes(String(value))) other.value = other.textContent = String(value);
        select.value = value;
        select.disabled = needed !== undefined && model.get("state").values[field] !== needed;
        select.title = select.disabled ? `only with ${field} ${needed}` : "";
      },
    };
    return element("div", { class: "cnnlab-choice", title: limit.meaning },
      element("span", { class: "cnnlab-heading" }, element("span", { class: "cnnlab-name" }, limit.label), helper(limit.explanation)), select, mistake.said);
  };

  const folded = (title, contents, ...children) => {
    const about = element("span", { class: "cnnlab-contents" }, contents);
    return element("details", { class: "cnnlab-group" }, element("summary", {}, element("b", {}, title), " ", about), ...children);
  };
  const group = ([title, names], order) => {
    const limits = model.get("limits");
    const numbers = names.filter((name) => limits[name].kind === "number");
    const choices = names.filter((name) => limits[name].kind === "choice");
    const fields = [element("div", { class: "cnnlab-fields" }, ...numbers.map((name) => number(name, limits[name]))),
      element("div", { class: "cnnlab-choices" }, ...choices.map((name) => choice(name, limits[name])))];
    if (order === 0) return element("fieldset", { class: "cnnlab-group" }, element("legend", {}, title), ...fields);
    const named = [...numbers, ...choices].map((name) => limits[name].label).filter((label) => label !== title);
    return folded(title, named.join(", ").toLowerCase().replaceAll("relu", "ReLU"), ...fields);
  };
  const problem = element("div", { class: "cnnlab-problem", role: "alert" });
  const note = element("div", { class: "cnnlab-note", role: "status" });
  const tree = element("ul", { class: "cnnlab-tree" });
  const branches = folded("Branches", "", helper(model.get("explanations").branches), tree);
  const takeImage = () => {
    const labels = element("select", { class: "cnnlab-select", "aria-label": "Labels of your image", onchange: () => hand() },
      ...model.get("labels").map(([text, value]) => element("option", { value }, text)));
    const file = element("input", { type: "file", accept: "image/*", hidden: true, "aria-label": "Image of your own", onchange: () => hand() });
    const hand = async () => {
      if (file.files.length) send({ file: labels.value }, await file.files[0].arrayBuffer());
    };
    const pick = element("button", { type: "button", class: "cnnlab-button", onclick: () => {
      file.value = ""; // so that the same file can be chosen again
      file.click();
    } }, "Train on an image of your own (PNG or JPEG)");
    const mistake = refusal("image", pick);
    rows.image = { mistake, show: () => {} };
    return folded("Your own image", "patches cut from a file", pick, file, element("div", { class: "cnnlab-joined" }, labels, helper(model.get("explanations").image)), mistake.said);
  };
  const grow = (branch, several) => {
    const chip = element("span", { class: "cnnlab-chip", style: `background: ${branch.colour}` });
    const choose = element("button", { type: "button", class: "cnnlab-branch", "aria-pressed": String(branch.present), title: branch.label,
      onclick: () => send({ do: "choose_branch", branch: branch.number }) }, chip, `${branch.number}  ${branch.label}`);
    const drop = element("button", { type: "button", class: "cnnlab-drop", "aria-label": `Delete branch ${branch.number}`, title: "Delete this branch",
      onclick: () => send({ do: "delete_branch", branch: branch.number }) }, "✕");
    return element("li", { style: `padding-left: ${Math.min(branch.depth, 5) * 0.9}em` }, choose, ...(several ? [drop] : []));
  };
  const forks = model.get("state").branches ? [branches] : []; // a loop of the user's own has none
  const image = model.get("labels").length ? [takeImage()] : [];
  const root = element("div", { class: "cnnlab cnnlab-controls" }, ...model.get("groups").map(group), problem, note, ...image, ...forks);
  el.append(root);
  const { send, disconnect, keepOff } = connect(model, root);

  const draw = keepOff((heard) => {
    root.style.setProperty("--cnnlab-scale", model.get("scale"));
    const state = model.get("state");
    for (const [name, row] of Object.entries(rows)) {
      if (waiting[name] > heard) continue;
      row.show(state.values[name], name in waiting);
      delete waiting[name];
    }
    const places = { ...rows, schedule };
    for (const [name, { mistake }] of Object.entries(places)) mistake.show(state.refused === name ? state.problem : "");
    const elsewhere = state.refused in places || state.refused === "updates"; // beside its box, which the header has
    say(problem, elsewhere ? "" : state.problem);
    say(note, state.note);
    if (!state.branches) return;
    drawBand(state.band);
    if (document.activeElement !== course) course.value = state.schedule;
    const drawn = JSON.stringify(state.branches);
    if (tree.dataset.drawn !== drawn) {
      branches.open ||= state.branches.length > (tree.childElementCount || 1); // a new branch is shown
      branches.querySelector(".cnnlab-contents").textContent = state.branches.length === 1 ? "one, the run itself" : `${state.branches.length}`;
      tree.dataset.drawn = drawn;
      tree.replaceChildren(...state.branches.map((branch) => grow(branch, state.branches.length > 1)));
    }
  });
  const follow = () => {
    const state = model.get("state");
    const [by, hand] = state.heard;
    draw(by === view ? hand : 0);
  };
  model.on("change:state", follow);
  follow();
  return () => {
    clearTimeout(settled);
    disconnect();
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
        element("th", { scope: "row", title: name }, element("span", { class: "cnnlab-chip", style: `background: ${colour}` }), name), ...cells.map(() => element("td"))));
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

const parts = { header, controls, strip };
export default {
  render: async ({ model, el }) => {
    el.addEventListener("keydown", keep);
    return parts[model.get("part")]({ model: await withTexts(model), el });
  },
};
