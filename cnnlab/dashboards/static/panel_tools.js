// The small buttons at the right end of each plot's title: large or back, what it shows, its picture, its numbers.

function download(address, name) {
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
}

// `figure()` gives the whole figure for plotly, points and all, in the colours of the page.
function makePanelTools(model, box, Plotly, figure) {
  const bars = document.createElement("div");
  bars.className = "cnnlab-panels";
  box.append(bars);
  const { send, disconnect, keepOff } = connect(model, bars);
  let drawn = "";

  const savePicture = async (panel) => {
    const { data, layout } = figure();
    const scale = 2, { width, height } = layout;
    const whole = new Image();
    whole.src = await Plotly.toImage({ data, layout }, { format: "png", width, height, scale });
    await whole.decode();
    const [left, top, wide, high] = panel.box.map((pixels) => Math.round(pixels * scale));
    const cut = document.createElement("canvas");
    Object.assign(cut, { width: wide, height: high });
    cut.getContext("2d").drawImage(whole, -left, -top);
    download(cut.toDataURL("image/png"), `${panel.name}.png`);
  };
  const button = (sign, label, action, more = {}) =>
    element("button", { type: "button", class: "cnnlab-tool", title: label, "aria-label": label, onclick: action, ...more }, sign);
  const makeBar = (panel, focus) => {
    const large = focus === panel.name;
    const words = element("div", { class: "cnnlab-tip", popover: "auto", role: "note" }, element("p", {}, panel.help),
      linkLab(panel.link.match(/(\w+)\.ipynb$/)[1]));
    const [left, top, width] = panel.box;
    const help = button("?", `What ${panel.title} shows`, () => words.togglePopover({ source: help }));
    placePopover(words, help);
    return element("div", { class: "cnnlab-tools", role: "group", "data-panel": panel.name, "aria-label": panel.title, style: `left: ${left}px; top: ${top}px; width: ${width}px` },
      button(large ? "⤡" : "⤢", large ? "All plots again (Escape)" : `Show ${panel.title} large`, () => send({ focus: large ? null : panel.name }), { "aria-pressed": String(large), "data-tool": "focus" }),
      help, words,
      ...(panel.then && model.get("events").includes("magnitudes") ? [button("⇄", `Show ${panel.then} in place of ${panel.kind}`,
        () => send({ magnitudes: panel.then }), { "data-tool": "magnitudes" })] : []),
      button("PNG", `Save ${panel.title} as a picture`, () => savePicture(panel)),
      button("CSV", `Save the numbers of ${panel.title}`, () => send({ csv: panel.name })));
  };
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && bars.dataset.focus && !box.querySelector(":popover-open")) send({ focus: null });
  });
  return {
    close: disconnect,
    draw: keepOff((meta) => {
      const wanted = JSON.stringify(meta ?? null);
      if (wanted === drawn) return;
      drawn = wanted;
      const holder = bars.contains(document.activeElement) && document.activeElement;
      const held = holder && holder.dataset.tool, of = holder && holder.closest(".cnnlab-tools").dataset.panel;
      bars.dataset.focus = meta?.focus ?? "";
      bars.replaceChildren(...(meta?.panels ?? []).map((panel) => makeBar(panel, meta.focus)));
      if (held) (bars.querySelector(`[data-panel=${of}] [data-tool=${held}]`) ?? bars.querySelector("[data-tool=focus]"))?.focus();
    }),
  };
}
