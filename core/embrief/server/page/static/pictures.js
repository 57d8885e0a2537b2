// Pictures that were found: fetched with the key, a few at a time, and shown from this tab's own memory.

import { picture } from "./api.js";
import { el } from "./dom.js";

const AT_ONCE = 4;

export class Pictures {
  #collection = null;
  #addresses = new Map();
  #waiting = [];
  #running = 0;
  #stopped = new AbortController();

  // Forgets those of the former search.
  begin(collection) {
    this.#stopped.abort();
    this.#stopped = new AbortController();
    for (const made of this.#addresses.values()) {
      void made.then((address) => address && URL.revokeObjectURL(address));
    }
    this.#addresses = new Map();
    this.#waiting = [];
    this.#collection = collection;
  }

  // An element that shows a picture once it is there; it has no text of its own beside what says its name.
  show(id, kind) {
    const shown = el("img", { class: `found ${kind}`, alt: "", hidden: true });
    void this.#address(id).then((address) => {
      if (!address) return;
      shown.src = address;
      shown.hidden = false;
    });
    return shown;
  }

  #address(id) {
    if (!this.#addresses.has(id)) {
      this.#addresses.set(id, new Promise((done) => this.#waiting.push({ id, done, signal: this.#stopped.signal })));
      this.#next();
    }
    return this.#addresses.get(id);
  }

  #next() {
    if (this.#running >= AT_ONCE || !this.#waiting.length) return;
    const { id, done, signal } = this.#waiting.shift();
    this.#running += 1;
    picture({ collection: this.#collection, picture: id }, signal)
      .then((blob) => done(blob && URL.createObjectURL(blob)), () => done(null))
      .finally(() => {
        this.#running -= 1;
        this.#next();
      });
  }
}

// A file that the user has chosen, in base64.
export async function encoded(file) {
  const read = new FileReader();
  return await new Promise((done, failed) => {
    read.addEventListener("load", () => done(read.result.slice(read.result.indexOf(",") + 1)));
    read.addEventListener("error", () => failed(read.error));
    read.readAsDataURL(file);
  });
}
