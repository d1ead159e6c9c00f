// How the cameras are: told by the gateway as it happens, asked for every two seconds where that does not get through.

import { ask, at } from "./page.js";

const POLL = 2000;
// Where events come, we ask all the same now and then: a connection may die without a word.
const SELDOM = 30_000;

/**
 * Events: `cameras` (the list changed), `camera` (detail: one camera, new or changed), `removed` (detail: its name),
 * `connected` and `lost` (the gateway), `event` and `update` (detail: a visitor or the like; more about one), `open` (from
 * now on events come), `polled` (they do not, and the cameras were asked for instead).
 */
export class States extends EventTarget {
  cameras = new Map();
  connected = null;
  #source = null;
  /** Whether this source of events has ever told anything: some proxies hold them back. */
  #heard = false;
  /** The newest event or update that was told: a page that was hidden goes on after it. */
  #last = "";
  #asked = 0;
  #timer = null;
  #asking = false;
  #listed = false;

  start() {
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#rest() : this.#run()));
    addEventListener("pagehide", () => this.#rest());
    addEventListener("pageshow", ({ persisted }) => persisted && this.#run());
    addEventListener("online", () => this.#run());
    this.#run();
  }

  /** Asks now instead of later. */
  #run() {
    if (document.hidden) return;
    this.refresh();
    this.#open();
    clearInterval(this.#timer);
    this.#timer = setInterval(() => this.#tick(), POLL);
  }

  #rest() {
    clearInterval(this.#timer);
    this.#source?.close();
    this.#source = null;
  }

  #tick() {
    const told = this.#heard && this.#source?.readyState === EventSource.OPEN;
    if (!told || performance.now() - this.#asked > SELDOM) this.refresh();
    if (this.#source?.readyState === EventSource.CLOSED) this.#open();
  }

  #open() {
    this.#source?.close();
    const query = this.#last && `?last_event_id=${this.#last}`;
    const source = new EventSource(at(`v1/events/stream${query}`));
    this.#source = source;
    this.#heard = false;
    const hear = (kind, then) => source.addEventListener(kind, (message) => {
      this.#heard = true;
      this.#last = message.lastEventId || this.#last;
      this.#reached(true);
      try {
        then(JSON.parse(message.data));
      } catch (error) {
        console.warn("Fanlight: an event that cannot be read", error);
      }
    });
    hear("state", (camera) => this.#take(camera));
    hear("removed", ({ name }) => this.#remove(name));
    for (const kind of ["event", "update"]) hear(kind, (event) => this.#tell(kind, event));
    source.addEventListener("open", () => this.#tell("open"));
    source.addEventListener("error", () => this.refresh());
  }

  /** Asks for all cameras. */
  async refresh() {
    if (this.#asking) return;
    this.#asking = true;
    this.#asked = performance.now();
    try {
      const answer = await ask("v1/cameras", { cache: "no-store", signal: AbortSignal.timeout?.(5000) });
      if (answer.status === 401) return;
      if (!answer.ok) throw new Error(`HTTP status ${answer.status}`);
      this.#all((await answer.json()).cameras);
      this.#reached(true);
      if (!this.#heard) this.#tell("polled");
    } catch {
      this.#reached(false);
    } finally {
      this.#asking = false;
    }
  }

  #all(cameras) {
    const names = cameras.map((camera) => camera.name);
    const same = names.length === this.cameras.size && [...this.cameras.keys()].every((name, i) => name === names[i]);
    this.cameras = new Map(cameras.map((camera) => [camera.name, camera]));
    if (!same || !this.#listed) this.#tell("cameras");
    this.#listed = true;
    for (const camera of cameras) this.#tell("camera", camera);
  }

  #take(camera) {
    // A new one has a place in the list, which the gateway knows.
    if (!this.cameras.has(camera.name)) {
      this.refresh();
      return;
    }
    this.cameras.set(camera.name, camera);
    this.#tell("camera", camera);
  }

  #remove(name) {
    if (!this.cameras.delete(name)) return;
    this.#tell("cameras");
    this.#tell("removed", name);
  }

  #reached(connected) {
    if (this.connected === connected) return;
    const before = this.connected;
    this.connected = connected;
    if (!connected) this.#tell("lost");
    else if (before === false) this.#tell("connected");
  }

  #tell(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }
}

const CODECS = { h264: "H.264", h265: "H.265", jpeg: "JPEG", aac: "AAC", opus: "Opus", pcmu: "G.711", pcma: "G.711" };

/** A codec as people write it. */
export const codecName = (codec) => CODECS[codec] ?? codec;

/** The video track of a stream of the camera, the main one's if none is named. */
export function videoTrack(camera, stream = camera.name) {
  return camera.tracks.find((track) => track.stream === stream && track.kind === "video");
}

/** Width by height of the picture as it is to be shown, or 0 while that is not known. */
export function shape(track) {
  if (!track?.width || !track?.height) return 0;
  return (track.width / track.height) * squareness(track);
}

/** Width by height of one pixel. */
export function squareness(track) {
  const [width, height] = track?.pixel_aspect ?? [1, 1];
  return width && height ? width / height : 1;
}

export const watching = (camera) => Object.values(camera.viewers).reduce((sum, count) => sum + count, 0);

// As the gateway has it: below this rate it tells of each picture.
const SLOW = 0.5;

/**
 * Whether the camera sends a picture now and then, as a bell does: that one with its age tells more than a film in which
 * nothing moves.
 */
export function isRestful(camera) {
  const track = videoTrack(camera);
  return camera.state === "online" && track?.native === true && track.codec === "jpeg" && (track.fps ?? 0) < SLOW;
}

/** How long ago that is, in words; the argument is in seconds. */
export function ago(seconds) {
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  const days = Math.floor(seconds / 86_400);
  return days === 1 ? "yesterday" : `${days} days ago`;
}

/** The state in a word or two. */
export function stateWord(camera) {
  return { online: "Online", connecting: "Connecting", offline: "Offline", idle: "Idle" }[camera.state] ?? camera.state;
}

/** The state in a sentence, with its reason. */
export function stateSentence(camera) {
  if (camera.reason) return camera.reason;
  return {
    online: "Online",
    connecting: "Connecting to the camera",
    offline: "The camera is offline",
    idle: "Idle: the camera is connected when somebody watches",
  }[camera.state] ?? camera.state;
}

/** Size, codec and rate of a stream. */
export function trackWords(track) {
  if (!track) return "";
  const size = track.width && track.height ? `${track.width}×${track.height}` : null;
  const rate = track.fps ? `${Math.round(track.fps * 10) / 10} fps` : null;
  return [size, codecName(track.codec), rate].filter(Boolean).join(" · ");
}

