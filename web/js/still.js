// A still picture in an <img>, fetched again every now and then.

import { ask, at } from "./page.js";

const EVERY = 10_000;
// Few widths, so that the gateway scales each picture once for everybody.
const WIDTHS = [320, 640, 960, 1280, 1920];

export class Still {
  #image;
  #path;
  #stream;
  #timer = null;
  #busy = false;
  #more = false;
  #url = null;

  /** `changed(age)` is called with the age of each picture in seconds, or with `null` where there is none. */
  constructor(image, name, { stream = null, changed = () => {} } = {}) {
    this.#image = image;
    this.#path = `v1/cameras/${encodeURIComponent(name)}/snapshot.jpg`;
    this.#stream = stream;
    this.changed = changed;
  }

  /** Fetches now, and again every ten seconds until `stop()`. */
  start() {
    if (this.#timer !== null) return;
    this.#timer = setInterval(() => this.fetch(), EVERY);
    this.fetch();
  }

  stop() {
    clearInterval(this.#timer);
    this.#timer = null;
  }

  async fetch() {
    // There may be a newer one than the one that is on its way.
    this.#more = this.#busy;
    if (this.#busy) return;
    this.#busy = true;
    try {
      const wanted = (this.#image.clientWidth || 320) * Math.min(devicePixelRatio || 1, 2);
      const query = new URLSearchParams({ width: WIDTHS.find((width) => width >= wanted) ?? WIDTHS.at(-1) });
      if (this.#stream) query.set("stream", this.#stream);
      const answer = await ask(`${this.#path}?${query}`, { cache: "no-cache" });
      if (!answer.ok) {
        this.changed(null);
        return;
      }
      await this.#put(await answer.blob());
      this.changed(Number(answer.headers.get("Age") ?? 0));
    } catch {
      // The next one may come; the page says elsewhere that the gateway is away.
    } finally {
      this.#busy = false;
      if (this.#more) this.fetch();
    }
  }

  /** Of that stream from now on. */
  set stream(stream) {
    this.#stream = stream;
  }

  /** Shown once it is decoded, so that nothing flickers. */
  async #put(blob) {
    const url = URL.createObjectURL(blob);
    const ready = new Image();
    ready.src = url;
    try {
      await ready.decode();
    } catch (error) {
      URL.revokeObjectURL(url);
      throw error;
    }
    this.#image.src = url;
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = url;
    this.width = ready.naturalWidth;
    this.height = ready.naturalHeight;
  }
}
