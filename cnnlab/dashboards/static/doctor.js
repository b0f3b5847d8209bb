// The panel that says why a run broke: cause and chain at the left, remedies as cards with small curves, indicators below.
// Python sends one dictionary in `state`; closing the panel and applying a remedy go back as messages.

const WIDE = 150, HIGH = 46, TOP = 9;
const drawing = (tag, attributes) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
};

// Costs on a logarithmic axis; what is no number gets a cross in the lane along the top.
function curve(powers, broken, label) {
  const numbers = powers.filter((power) => power !== null);
  const low = Math.min(...numbers, -0.5) - 0.2, high = Math.max(Math.min(Math.max(...numbers), 8), 1.5) + 0.2;
  const last = Math.max(powers.length, broken.length, 2) - 1;
  const x = (place) => 4 + (place / last) * (WIDE - 8);
  const y = (power) => HIGH - 3 - ((Math.min(power, high) - low) / (high - low)) * (HIGH - TOP - 5);
  const picture = drawing("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img", "aria-label": label, class: "cnnlab-curve" });
  const line = (values, kind) => {
    const points = values.map((power, place) => (power === null ? null : `${x(place).toFixed(1)},${y(power).toFixed(1)}`));
    picture.append(drawing("polyline", { points: points.filter(Boolean).join(" "), class: kind }));
    const lost = values.findIndex((power) => power === null);
    if (lost >= 0) {
      const cross = drawing("text", { x: x(lost), y: TOP - 1, class: `${kind} cnnlab-cross`, "text-anchor": "middle" });
      cross.textContent = "✕";
      picture.append(cross);
    }
  };
  line(broken, "cnnlab-before");
  line(powers, "cnnlab-after");
  return picture;
}

const list = (items, kind) => element("ul", { class: kind }, ...items.map((item) => element("li", {}, item)));

function render({ model, el }) {
  const root = element("section", { class: "cnnlab cnnlab-doctor", "aria-label": "Why", hidden: true });
  el.append(root);
  const { send, disconnect, keepOff } = connect(model, root);

  const card = (trial, place, broken) => element("div", { class: "cnnlab-card", "data-verdict": trial.verdict },
    element("div", { class: "cnnlab-card-head" },
      element("span", { class: "cnnlab-verdict" }, trial.verdict),
      element("button", { type: "button", class: "cnnlab-button", "aria-label": `Apply: ${trial.name}`,
        title: trial.restarts ? "Start again from update 0 with this change" : `Begin a new branch after update ${trial.start} with this change`,
        onclick: () => send({ apply: place }) }, "Apply")),
    element("div", { class: "cnnlab-card-name", title: trial.changes }, trial.name, trial.posted ? element("span", { class: "cnnlab-posted", title: "One of the five remedies of the posted answer" }, " ★") : ""),
    element("div", { class: "cnnlab-changes", title: trial.changes }, trial.changes),
    curve(trial.curve, broken, `Cost with ${trial.name}: ${trial.verdict}`),
    element("div", { class: "cnnlab-reason", title: trial.reason }, trial.reason));

  const drawIndicator = (detector) => element("span", { class: "cnnlab-indicator", title: detector.title, "data-lit": String(detector.lit), "data-early": String(detector.early) },
    element("span", { class: "cnnlab-bulb", "aria-hidden": "true" }), `${detector.name}: ${detector.said}`);

  const drawIndicators = (state) => element("div", { class: "cnnlab-indicators" }, element("b", {}, "Detectors, on the present run"), ...state.indicators.map(drawIndicator), element("span", { class: "cnnlab-clock" }, state.clock));

  let drawn = "";
  const draw = keepOff(() => {
    const state = model.get("state");
    // Indicators change while the run trains; what was found out stays, and with it where the user has scrolled to.
    const rest = JSON.stringify({ ...state, indicators: null, clock: null });
    if (state.indicators && rest === drawn) return root.querySelector(".cnnlab-indicators").replaceWith(drawIndicators(state));
    drawn = rest;
    root.style.setProperty("--cnnlab-scale", model.get("scale"));
    root.hidden = !state.open;
    if (!state.open) return root.replaceChildren();
    const close = element("button", { type: "button", class: "cnnlab-drop", "aria-label": "Close this panel", title: "Close", onclick: () => send({ do: "hide_doctor" }) }, "✕");
    if (state.busy || state.problem) {
      const said = state.problem || "Looking for the first NaN, and trying remedies on copies of the run …";
      return root.replaceChildren(element("div", { class: "cnnlab-busy", role: state.problem ? "alert" : "status" }, said), close);
    }
    const place = state.place ? [element("p", {}, element("b", {}, "First NaN or inf: "), state.place)] : [];
    const others = state.others.map(([name, why]) => element("li", { title: why }, element("b", {}, name), `: ${why}`));
    const left = element("div", { class: "cnnlab-findings", tabindex: "0" },
      element("h3", { title: state.meaning }, `${state.cause} `, element("small", {}, `confidence ${state.confidence}`)),
      element("p", {}, state.meaning), ...place,
      element("b", {}, state.chain.length ? "How it came about" : "Evidence"), list(state.chain.length ? state.chain : state.evidence, "cnnlab-chain"),
      ...(others.length ? [element("b", {}, "It may also be"), element("ul", { class: "cnnlab-chain" }, ...others)] : []),
      ...(state.rules.length ? [list(state.rules, "cnnlab-rules")] : []));
    const cards = element("div", { class: "cnnlab-cards", tabindex: "0" }, ...state.trials.map((trial, place) => card(trial, place, state.broken)));
    const legend = element("div", { class: "cnnlab-legend" },
      state.trials.length ? `Remedies tried from update ${state.before} on, on copies of the run (grey: as it went; ★: in the posted answer)` : state.cause === "healthy" ? "Nothing to mend." : "No setting of the run mends this.");
    root.replaceChildren(close, element("div", { class: "cnnlab-columns" }, left, element("div", { class: "cnnlab-remedies" }, legend, cards)), drawIndicators(state));
  });
  el.addEventListener("keydown", keep);
  model.on("change:state", draw);
  draw();
  return () => {
    disconnect();
    model.off("change:state", draw);
  };
}

export default { render: async ({ model, el }) => render({ model: await withTexts(model), el }) };
