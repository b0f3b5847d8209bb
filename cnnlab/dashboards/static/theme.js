// The colours of the page that a figure lies on: those of its own elements, and on a dark ground those of the table.

const watchers = new Set();
const announce = () => watchers.forEach((watcher) => watcher());
new MutationObserver(announce).observe(document.body, { attributes: true, attributeFilter: ["class", "data-jp-theme-light", "data-jp-theme-name"] });

// What the page's style says of a figure: ink, paper, ground of a plot, lines of its grid.
function readTheme(element) {
  const style = getComputedStyle(element);
  const read = (name, otherwise) => style.getPropertyValue(`--cnnlab-${name}`).trim() || otherwise;
  const paper = read("paper", "#ffffff");
  return { paper, ground: read("ground", "#f7f8fa"), ink: read("ink", "#222222"), grid: read("grid", "#e6e9ed"), dark: isDark(paper) };
}

// Red, green and blue of any colour that a style may name.
const colourParts = new Map();
function readColour(colour) {
  if (!colourParts.has(colour)) {
    const pen = document.createElement("canvas").getContext("2d");
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    colourParts.set(colour, [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3));
  }
  return colourParts.get(colour);
}

// Whether a colour is nearer to black than to white.
function isDark(colour) {
  const [red, green, blue] = readColour(colour);
  return 0.299 * red + 0.587 * green + 0.114 * blue < 128;
}

// Turns colours into those of the present ground, texts with colours in them included.
function makePainter(table, theme) {
  const found = new Map();
  const names = Object.keys(table).map((name) => name.replace(/[()]/g, "\\$&"));
  const all = new RegExp(names.join("|") || "$^", "gi");
  const known = Object.fromEntries(Object.entries(table).map(([name, colour]) => [name.toLowerCase(), colour]));
  const paint = (text) => {
    if (!theme.dark || typeof text !== "string" || text.length > 500) return text;
    if (!found.has(text)) found.set(text, text.replace(all, (colour) => known[colour.toLowerCase()] ?? colour));
    return found.get(text);
  };
  const paintAll = (value) => {
    if (typeof value === "string") return paint(value);
    if (Array.isArray(value)) return value.map(paintAll);
    if (value && typeof value === "object" && !ArrayBuffer.isView(value)) {
      return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, paintAll(part)]));
    }
    return value;
  };
  return { paint, paintAll };
}
