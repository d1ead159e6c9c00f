// Visits as pages show them: small cards, one large in a dialog, large by itself on a wall tablet.

import { announce, at, byId, galleryOf, kiosk, make, pageOf, toast } from "./page.js";
import { Visits, kindWord, sentence, since, spoken, whenExactly, whenWords } from "./visits.js";

// What a wall tablet shows large, and for how long. Milliseconds.
const LARGE = 20_000;
// Whoever came longer ago, while nobody could be told, is not shown as if it were now. Seconds.
const NOW = 60;

const ICON = at("assets/icon.svg");
/** The picture's address. The gateway's paths begin at its own root, which may be below a prefix. */
const pictureOf = (visit) => (visit.picture ? at(visit.picture.slice(1)) : null);

/** An image that becomes our sign where there is no picture, or none any more. */
function put(image, visit, alternative) {
  const address = pictureOf(visit) ?? alternative ?? ICON;
  if (image.dataset.shows === address) return;
  image.dataset.shows = address;
  image.classList.toggle("none", address === ICON);
  image.onerror = () => {
    image.onerror = null;
    image.classList.add("none");
    image.src = ICON;
  };
  image.src = address;
}

/** Cards of visits in a list, kept as they are while they stay the same. */
export class Cards {
  #list;
  #visits;
  #dialog;
  #cards = new Map();

  /** `named`: each says at which camera. */
  constructor(list, visits, { named = true } = {}) {
    this.#list = list;
    this.#visits = visits;
    this.#dialog = new Dialog(visits);
    this.named = named;
    visits.addEventListener("changed", () => this.#draw());
    visits.addEventListener("came", ({ detail }) => this.#came(detail));
    visits.addEventListener("updated", ({ detail }) => this.#dialog.renew(detail));
    setInterval(() => this.#draw(), 15_000);
  }

  #draw() {
    const { list } = this.#visits;
    const kept = new Set(list.map(({ id }) => id));
    for (const [id, card] of this.#cards) {
      if (kept.has(id)) continue;
      card.remove();
      this.#cards.delete(id);
    }
    list.forEach((visit, index) => {
      const card = this.#cards.get(visit.id) ?? this.#make(visit);
      this.#cards.set(visit.id, card);
      this.#fill(card, visit);
      const there = this.#list.children[index];
      if (there !== card) this.#list.insertBefore(card, there ?? null);
    });
  }

  #make(visit) {
    const image = make("img", { alt: "", loading: "lazy", decoding: "async" });
    const button = make("button", { type: "button", className: "visit" }, image, make("strong"), make("time"));
    button.addEventListener("click", () => this.#dialog.open(visit.id));
    return make("li", {}, button);
  }

  #fill(card, visit) {
    put(card.querySelector("img"), visit);
    const [name, time] = [card.querySelector("strong"), card.querySelector("time")];
    const place = this.named && visit.camera ? spoken(visit.camera) : "";
    write(name, place || kindWord(visit.kind));
    write(time, place && visit.kind !== "visitor" ? `${kindWord(visit.kind)} · ${whenWords(visit)}` : whenWords(visit));
    time.dateTime = visit.at;
    time.title = whenExactly(visit);
    if (since(visit) >= NOW) card.classList.remove("fresh");
  }

  #came(visit) {
    const words = sentence(visit);
    announce(since(visit) < NOW ? words : `${words}, ${whenWords(visit)}`);
    this.#cards.get(visit.id)?.classList.add("fresh");
    // Where it is read from the left, the newest is in sight.
    if (this.#list.scrollLeft < 400) this.#list.scrollTo({ left: 0, behavior: "smooth" });
    if (kiosk && since(visit) < NOW) this.#dialog.large(visit);
  }
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const ARROW = { newer: "M15 5l-7 7 7 7", older: "M9 5l7 7-7 7" };

function icon(path) {
  const [svg, line] = ["svg", "path"].map((tag) => document.createElementNS("http://www.w3.org/2000/svg", tag));
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

/** One visit, large. Arrow keys lead to newer and older ones, Escape back. */
class Dialog {
  #visits;
  #shown = null;
  #timer = null;

  constructor(visits) {
    this.#visits = visits;
    this.image = make("img", { alt: "" });
    this.title = make("h2", { id: "guest-title" });
    this.time = make("time");
    this.step = {};
    for (const [way, by] of [["newer", -1], ["older", 1]]) {
      const label = way === "newer" ? "Newer" : "Older";
      this.step[way] = make("button", { type: "button", className: "icon", title: label, "aria-label": label }, icon(ARROW[way]));
      this.step[way].addEventListener("click", () => this.#go(by));
    }
    this.save = make("a", { className: "button", textContent: "Save" });
    this.page = make("a", { className: "button", textContent: "Live" });
    const close = make("button", { type: "button", textContent: "Close" });
    close.addEventListener("click", () => this.element.close());
    const words = make("div", { className: "words" }, this.title, make("p", {}, this.time));
    const controls = make("div", { className: "controls" }, this.step.newer, this.step.older,
      make("span", { className: "space" }), this.page, this.save, close);
    this.element = make("dialog", { className: "guest", "aria-labelledby": "guest-title" },
      make("div", { className: "screen" }, this.image), words, controls);
    this.element.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft") this.#go(-1);
      else if (event.key === "ArrowRight") this.#go(1);
      else return;
      event.preventDefault();
    });
    // Beside the picture, and anywhere on a wall tablet.
    this.element.addEventListener("click", ({ target }) => {
      if (target === this.element || this.element.classList.contains("large")) this.element.close();
    });
    this.element.addEventListener("close", () => {
      clearTimeout(this.#timer);
      this.#shown = null;
    });
    this.image.addEventListener("load", () => {
      const { naturalWidth, naturalHeight } = this.image;
      if (naturalWidth) this.element.style.setProperty("--aspect", (naturalWidth / naturalHeight).toFixed(4));
    });
    document.body.append(this.element);
  }

  open(id) {
    const visit = this.#visits.list.find((visit) => visit.id === id);
    if (!visit) return;
    this.element.classList.remove("large");
    this.#fill(visit);
    if (!this.element.open) this.element.showModal();
  }

  /** For a while, over whatever a wall tablet shows. */
  large(visit) {
    this.element.classList.add("large");
    this.#fill(visit);
    if (!this.element.open) this.element.showModal();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.element.close(), LARGE);
  }

  /** There is a better picture of it. */
  renew(visit) {
    if (this.#shown?.id === visit.id) this.#fill(visit);
  }

  #go(by) {
    const { list } = this.#visits;
    const visit = list[list.findIndex(({ id }) => id === this.#shown?.id) + by];
    if (visit) this.#fill(visit);
  }

  #fill(visit) {
    this.#shown = visit;
    // Without a picture of its own, what the camera sees now is better than nothing on a wall tablet.
    const now = visit.camera && this.element.classList.contains("large")
      ? at(`v1/cameras/${encodeURIComponent(visit.camera)}/snapshot.jpg?at=${visit.id}`) : null;
    put(this.image, visit, now);
    this.image.alt = visit.picture ? sentence(visit) : "No picture is kept of it";
    write(this.title, sentence(visit));
    write(this.time, `${whenWords(visit)} · ${whenExactly(visit)}`);
    this.time.dateTime = visit.at;
    const { list } = this.#visits;
    const index = list.findIndex(({ id }) => id === visit.id);
    this.step.newer.disabled = index <= 0;
    this.step.older.disabled = index < 0 || index === list.length - 1;
    this.page.hidden = !visit.camera || location.href === pageOf(visit.camera);
    if (visit.camera) this.page.href = pageOf(visit.camera);
    this.save.hidden = !visit.picture;
    if (visit.picture) {
      this.save.href = pictureOf(visit);
      this.save.download = `${visit.camera ?? "event"}-${visit.at.replaceAll(":", "")}.jpg`;
    }
  }
}

/** The strip of the newest visits on a page; of one camera only if it is named. Others' visits are said at the edge. */
export function strip(states, camera = null) {
  const section = byId("visits");
  const visits = new Visits(states, { camera });
  const cards = new Cards(byId("strip"), visits, { named: !camera });
  byId("all-visits").href = galleryOf(camera);
  visits.addEventListener("changed", () => { section.hidden = visits.list.length === 0; });
  return { visits, cards };
}

/** What else happens, at the edge of the page. */
export function mention(event) {
  // Comings and goings show on the cameras themselves, and an end is no news.
  if (["online", "offline", "new_doorbell"].includes(event.kind) || event.detail?.on === false) return;
  toast(sentence(event), event.camera ? pageOf(event.camera) : undefined);
}
