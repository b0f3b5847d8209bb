// A page that is opened from a file may not start a worker. There the search runs in a hidden frame instead.
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(url) {
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.onload = () => this.begin(new URL(url, location.href).href);
      document.body.append(this.frame);
    }

    begin(url) {
      const inner = this.frame.contentWindow;
      inner.postMessage = (data) => this.send(data, this);
      const script = inner.document.createElement("script");
      script.src = url;
      script.onerror = (event) => this.onerror?.(event);
      script.onload = () => {
        this.inner = inner;
        this.waiting.forEach((data) => this.send(data, inner));
      };
      inner.document.body.append(script);
    }

    // A worker and its page share no objects, and neither waits for the other.
    send(data, to) {
      const copy = structuredClone(data);
      setTimeout(() => to.onmessage?.({ data: copy }));
    }

    postMessage(data) {
      if (this.inner) this.send(data, this.inner);
      else this.waiting.push(structuredClone(data));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
