// Who was at the doors: what the gateway keeps of it, and who comes while we look.

import { ask } from "./page.js";
import { ago } from "./states.js";

/** Somebody was there. */
export const PEOPLE = ["visitor", "floor_bell", "alarm"];

const WORDS = { visitor: "Visitor", floor_bell: "Floor bell", alarm: "Alarm", new_doorbell: "New doorbell" };

/** A kind of event as people say it. */
export function kindWord(kind) {
  const words = kind.replaceAll("_", " ");
  return WORDS[kind] ?? words.charAt(0).toUpperCase() + words.slice(1);
}

/** A camera's name as it is read aloud. */
export const spoken = (name) => name.replaceAll(/[-_]/g, " ");

export const sentence = ({ kind, camera }) => kindWord(kind) + (camera ? ` at ${spoken(camera)}` : "");

// Milliseconds by which the gateway's clock is before ours: wall tablets' are often wrong.
let skew = 0;
/** Seconds since then. */
export const since = (visit) => Math.max(0, (Date.now() - skew - Date.parse(visit.at)) / 1000);

export const whenWords = (visit) => ago(since(visit));
export const whenExactly = (visit) => new Date(visit.at).toLocaleString();

const newestFirst = (one, other) => Number(other.id) - Number(one.id);

/**
 * The newest visits, newest first, in `list`. Events: `changed` (the list), `came` (detail: a visit that is new),
 * `updated` (detail: a visit with another picture).
 */
export class Visits extends EventTarget {
  list = [];
  /** What to ask for to get older ones, or `null`. */
  next = null;
  #camera;
  #limit;
  #most;
  #asked = -Infinity;
  #asking = 0;
  /** Told while the list was asked for. */
  #meanwhile = [];
  #loaded = false;

  /** Asks for `limit` at a time, and holds `most` at most. */
  constructor(states, { camera = null, limit = 30, most = limit } = {}) {
    super();
    this.#most = most;
    this.#camera = camera;
    this.#limit = limit;
    for (const kind of ["event", "update"]) states.addEventListener(kind, ({ detail }) => this.#take(kind, detail));
    states.addEventListener("open", () => this.refresh());
    states.addEventListener("polled", () => {
      if (performance.now() - this.#asked > 4000) this.refresh();
    });
  }

  /** Of that camera only, or of all. */
  async show(camera) {
    this.#camera = camera;
    this.list = [];
    this.next = null;
    this.#loaded = false;
    await this.refresh();
  }

  /** Asks for the list; the gateway's is the truth, as it forgets when it starts again. */
  async refresh() {
    const turn = ++this.#asking;
    this.#asked = performance.now();
    this.#meanwhile = [];
    const answer = await this.#ask();
    if (!answer || turn !== this.#asking) return;
    // Pages that were asked for before still follow, if anything does.
    const oldest = Number(answer.events.at(-1)?.id);
    const older = answer.next ? this.list.filter(({ id }) => Number(id) < oldest) : [];
    if (!older.length) this.next = answer.next;
    const newest = Number(this.list[0]?.id ?? 0);
    const list = merged(older, [...answer.events, ...this.#meanwhile]);
    const fresh = this.#loaded ? list.filter(({ id }) => Number(id) > newest) : [];
    this.#loaded = true;
    this.#set(list);
    for (const visit of fresh.reverse()) this.#tell("came", visit);
  }

  /** Asks for older ones. */
  async older() {
    if (!this.next) return;
    const camera = this.#camera;
    const answer = await this.#ask(this.next);
    if (!answer || camera !== this.#camera) return;
    this.next = answer.next;
    this.#set(merged(this.list, answer.events));
  }

  async #ask(before) {
    const query = new URLSearchParams({ kind: PEOPLE.join(","), limit: this.#limit });
    if (this.#camera) query.set("camera", this.#camera);
    if (before) query.set("before", before);
    try {
      const answer = await ask(`v1/events?${query}`, { cache: "no-store" });
      if (!answer.ok) return null;
      const date = Date.parse(answer.headers.get("Date") ?? "");
      // The header has whole seconds.
      if (Number.isFinite(date)) skew = Math.abs(Date.now() - date) > 2000 ? Date.now() - date : 0;
      return await answer.json();
    } catch {
      // The page says elsewhere that the gateway is away; once it is back, we ask again.
      return null;
    }
  }

  #take(kind, visit) {
    if (!PEOPLE.includes(visit.kind) || (this.#camera && visit.camera !== this.#camera)) return;
    this.#meanwhile.push(visit);
    const known = this.list.some(({ id }) => id === visit.id);
    // More about one that is further back than what is shown.
    if (kind === "update" && !known) return;
    this.#set(merged(this.list, [visit]));
    if (this.#loaded) this.#tell(known ? "updated" : "came", visit);
  }

  #set(list) {
    list.length = Math.min(list.length, this.#most);
    const same = list.length === this.list.length
      && list.every(({ id, picture }, i) => id === this.list[i].id && picture === this.list[i].picture);
    this.list = list;
    if (!same || !list.length) this.#tell("changed");
  }

  #tell(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }
}

/** Both lists as one; what the later one says of an event holds. */
function merged(list, more) {
  const all = new Map([...list, ...more].map((visit) => [visit.id, visit]));
  return [...all.values()].sort(newestFirst);
}
