// An element with attributes, listeners (on...) and children; put before the scripts of the panel and of the doctor.
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


// A part's model, whose state is that of the texts which all parts of a dashboard are told in one message.
async function withTexts(model) {
  const texts = await model.widget_manager.get_model(model.get("texts").slice("IPY_MODEL_".length));
  const part = model.get("part");
  const find = (event) => (event === "change:state" ? [texts, `change:${part}`] : [model, event]);
  const pass = (verb) => (event, call) => {
    const [owner, name] = find(event);
    owner[verb](name, call);
  };
  return {
    get: (name) => (name === "state" ? texts.get(part) : model.get(name)),
    send: (message) => model.send(message),
    on: pass("on"),
    off: pass("off"),
  };
}
