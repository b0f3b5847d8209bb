// Reads plotly.js as soon as the page has it, before there is a figure.

export default {
  async initialize({ model }) {
    loadPlotly(model).catch(() => {}); // the first figure says it
  },
};
