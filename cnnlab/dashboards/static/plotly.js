// plotly.js, read once for all figures of a page.
function loadPlotly(script) {
  const pages = (window.cnnlabPlotly ??= {});
  return (pages[script.get("version")] ??= (async () => {
    await new Promise((resolve) => setTimeout(resolve, 0)); // reading it takes a second: what waits comes first
    const packed = script.get("code");
    const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const text = await new Response(unpacked).text();
    const parts = ["const module = { exports: {} }; let exports = module.exports, define;\n", text, "\nexport default module.exports;"];
    const address = URL.createObjectURL(new Blob(parts, { type: "text/javascript" }));
    try {
      return (await import(/* webpackIgnore: true */ address)).default;
    } finally {
      URL.revokeObjectURL(address);
    }
  })());
}
