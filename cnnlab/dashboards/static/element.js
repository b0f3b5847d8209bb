// Shared by the scripts of the panel and of the doctor, and put before them.

// An element with attributes, listeners (on...) and children.
const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
};

// A link to a lab by its file's name: beside the notebook where that lies in a folder `labs`, else in `labs` of the folder
// that JupyterLab serves (see `cnnlab lab`); elsewhere its title is all there is.
function linkLab(name, title = name.slice(3).replaceAll("_", " ")) {
  const words = `Lab ${name.slice(0, 2)}: ${title}`;
  const [, beside] = location.pathname.match(/^(.*\/(?:tree|notebooks)\/(?:.*\/)?labs\/)[^/]+$/) ?? [];
  const config = document.getElementById("jupyter-config-data");
  const base = config && JSON.parse(config.textContent).baseUrl;
  const folder = beside ?? (base && `${base}lab/tree/labs/`);
  return folder ? element("a", { href: `${folder}${name}.ipynb`, target: "_blank", rel: "noopener" }, words) : element("span", {}, words);
}

// Has a popover open below its button, or above it where there is no room.
function placePopover(card, button) {
  card.addEventListener("toggle", (event) => {
    if (event.newState !== "open") return;
    const at = button.getBoundingClientRect();
    const left = Math.max(4, Math.min(at.left, innerWidth - card.offsetWidth - 8));
    const below = at.bottom + 4 + card.offsetHeight < innerHeight;
    Object.assign(card.style, { left: `${left}px`, top: `${below ? at.bottom + 4 : Math.max(4, at.top - card.offsetHeight - 4)}px` });
  });
}

// The model that another one names.
const findModel = (model, name) => model.widget_manager.get_model(model.get(name).slice("IPY_MODEL_".length));

// A part's model, of which all that changes is in the texts that the parts of a dashboard share: `state` and `patches`.
async function withTexts(model) {
  const texts = await findModel(model, "texts");
  const names = { state: model.get("part"), patches: "patches" };
  const pass = (verb) => (event, call) => texts[verb](`change:${names[event.slice("change:".length)]}`, call);
  return {
    get: (name) => (name in names ? texts.get(names[name]) : model.get(name)),
    send: (...message) => model.send(...message),
    on: pass("on"),
    off: pass("off"),
    widget_manager: model.widget_manager,
  };
}

// JupyterLab takes plain keys for its own, such as the arrows that move a slider: those pressed here stay here.
const keep = (event) => {
  if (!event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation();
};

// The line to the kernel of one part of a dashboard. When the kernel has ended (restarted, shut down, crashed) the part
// stays on the screen: its buttons and inputs are turned off, and nothing is sent, for that would throw. `keepOff` is
// for what draws the part: a slow page reads the kernel's last messages after it has heard of the end.
function connect(model, root, ended = () => {}) {
  let alive = true, over = false;
  const turnOff = () => {
    root?.classList.add("cnnlab-ended");
    for (const input of root?.querySelectorAll("button, input, select") ?? []) input.disabled = true;
    ended();
  };
  const end = () => {
    if (!alive) return;
    alive = false;
    over = true;
    turnOff();
  };
  const keepOff = (draw) => (...given) => {
    draw(...given);
    if (over) turnOff();
  };
  const send = (message, ...buffers) => {
    if (!alive) return;
    try {
      model.send(message, undefined, buffers);
    } catch { // where no signal has told of the end
      end();
    }
  };
  const manager = model.widget_manager; // anywidget lets it through; JupyterLab's knows a notebook's session or a kernel
  const kernel = manager?.context?.sessionContext ?? manager?.kernel;
  const follow = (_sender, status) => /restarting|dead|terminating/.test(status) && end();
  const leave = (_sender, change) => change.oldValue && end();
  kernel?.statusChanged?.connect(follow);
  kernel?.kernelChanged?.connect(leave);
  const disconnect = () => {
    alive = false;
    kernel?.statusChanged?.disconnect(follow);
    kernel?.kernelChanged?.disconnect(leave);
  };
  return { send, disconnect, keepOff };
}
