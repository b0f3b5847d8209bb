// Reads plotly's widget from the model's own text, and keeps what the kernel sends meanwhile.
// anywidget gives a module two seconds to be read, and then drops every message: a slow machine needs longer for plotly.

const KINDS = ["addTraces", "deleteTraces", "moveTraces", "restyle", "relayout", "update", "animate",
  "removeLayoutProps", "removeTraceProps"].map((kind) => `_py2js_${kind}`);

async function imported(text) {
  const address = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  try {
    return await import(/* webpackIgnore: true */ address);
  } finally {
    URL.revokeObjectURL(address);
  }
}

export default () => {
  let loaded;

  async function load(model) {
    const early = [];
    const keepers = KINDS.map((kind) => [`change:${kind}`, () => early.push([kind, model.get(kind)])]);
    keepers.forEach(([event, keep]) => model.on(event, keep));
    const { default: makeWidget } = await imported(model.get("_plotly"));
    keepers.forEach(([event, keep]) => model.off(event, keep));

    const handlers = {}, played = {};
    const widget = makeWidget();
    widget.initialize({ model: {
      get: (name) => (name in played ? played[name] : model.get(name)),
      set: (name, value) => model.set(name, value),
      save_changes: () => {
        try {
          model.save_changes();
        } catch { /* a figure that was closed meanwhile, and still told of its new width */ }
      },
      on: (event, handler) => {
        handlers[event] = handler;
        model.on(event, handler);
      },
    } });
    for (const [kind, message] of early) {
      played[kind] = message;
      handlers[`change:${kind}`]();
      delete played[kind];
    }
    return widget;
  }

  return {
    initialize({ model }) { loaded = load(model); },
    async render({ el }) { return (await loaded).render({ el }); },
  };
};
