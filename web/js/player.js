// Keeps a <video> showing a camera over WebRTC, whatever happens in between.

import { reload } from "./page.js";
import { Refused, Session, unsupported } from "./whep.js";

// From the answer to a connection, and from the connection to a picture. Milliseconds, as everything here.
const CONNECT = 6000;
const SILENT = 8000;
const RETRY = [300, 1000, 2000, 4000, 8000, 15_000];
// While something else is shown because WebRTC does not get through.
const LATER = 60_000;
// Attempts that may fail before something else is shown.
const ATTEMPTS = 2;

/**
 * Event `phase` (see `phase` and `text`). The phases: `stopped`, `connecting`, `playing`, `waiting` (for a camera or a
 * gateway that is away; `text` says so), `failed` (WebRTC does not get through; tried again once a minute).
 */
export class Player extends EventTarget {
  phase = "stopped";
  text = "";
  /** Whether asking makes sense. While the camera is known to be away, `hurry()` tells when it is back. */
  worthwhile = true;
  #video;
  #url;
  #audio = false;
  #stream = new MediaStream();
  /** The session that is shown, and the one that may replace it. */
  #shown = null;
  #next = null;
  #failures = 0;
  #retries = 0;
  #timer = null;
  #watch = null;
  #frames = { count: 0, at: 0 };
  #patience = SILENT;

  constructor(video, url) {
    super();
    this.#video = video;
    this.#url = url;
  }

  /** The connection that is shown. */
  get connection() {
    return this.#shown?.connection ?? null;
  }

  start() {
    if (this.phase !== "stopped") return;
    const missing = unsupported();
    if (missing) {
      this.#enter("failed", missing);
      return;
    }
    this.#failures = 0;
    this.#retries = 0;
    this.#enter("connecting");
    this.#watch = setInterval(() => this.#look(), 1000);
    this.#attempt();
  }

  stop() {
    clearTimeout(this.#timer);
    clearInterval(this.#watch);
    this.#next?.close();
    this.#shown?.close();
    this.#next = this.#shown = null;
    for (const track of this.#stream.getTracks()) this.#stream.removeTrack(track);
    this.#enter("stopped");
  }

  /** Something that we waited for may have come: the camera, the network. */
  hurry() {
    if (this.#next || this.phase === "stopped" || this.phase === "playing") return;
    this.#retries = 0;
    this.#attempt();
  }

  /** The gateway was away, and with it all sessions: the picture that is shown may be an old one. */
  renew() {
    if (this.phase === "stopped") return;
    this.#retries = 0;
    this.#enter("connecting");
    this.#attempt();
  }

  /** Something that we cannot see keeps pictures from coming; what it is stands in `text`. */
  giveUp(text) {
    if (["connecting", "waiting"].includes(this.phase)) this.#fail(text);
  }

  /** Sound is asked for only where somebody listens: the gateway may have to make it. The picture stays meanwhile. */
  listen(audio) {
    if (this.#audio === audio) return;
    this.#audio = audio;
    if (this.phase !== "stopped") this.#attempt();
  }

  /** Another stream of the camera; the picture stays until the new one is there. */
  change(url) {
    if (this.#url === url) return;
    this.#url = url;
    if (this.phase !== "stopped") this.#attempt();
  }

  async #attempt() {
    clearTimeout(this.#timer);
    if (unsupported()) return;
    this.#next?.close();
    const tracks = [];
    const session = new Session(this.#url, {
      audio: this.#audio,
      tracks: (track) => {
        tracks.push(track);
        // A picture that is shown stays until there is another one.
        if (track.kind !== "video") return;
        if (this.#shown && track.muted) track.addEventListener("unmute", () => this.#show(session, tracks), { once: true });
        else queueMicrotask(() => this.#show(session, tracks));
      },
    });
    this.#next = session;
    const { connection } = session;
    connection.addEventListener("connectionstatechange", () => {
      const ours = session === this.#next || session === this.#shown;
      if (ours && connection.connectionState === "failed") this.#broken(session);
      if (ours && connection.connectionState === "disconnected" && session === this.#shown) this.#again();
      if (session === this.#shown && connection.connectionState === "connected") clearTimeout(this.#timer);
    });
    try {
      await session.open();
    } catch (error) {
      session.close();
      if (session === this.#next || session === this.#shown) this.#refused(error);
      return;
    }
    if (session !== this.#next && session !== this.#shown) return;
    this.#timer = setTimeout(() => {
      if (connection.connectionState !== "connected" && (session === this.#next || session === this.#shown)) this.#broken(session);
    }, CONNECT);
  }

  #show(session, tracks) {
    if (session !== this.#next) return;
    this.#next = null;
    const before = this.#shown;
    this.#shown = session;
    const old = this.#stream.getTracks();
    for (const track of tracks) this.#stream.addTrack(track);
    for (const track of old) this.#stream.removeTrack(track);
    // A track that comes later, as the answer lists them.
    session.connection.addEventListener("track", ({ track }) => {
      if (session === this.#shown) this.#stream.addTrack(track);
    });
    // Not earlier: the page would count as loading until there are tracks.
    if (this.#video.srcObject !== this.#stream) this.#video.srcObject = this.#stream;
    before?.close();
    this.#frames = { count: this.#count(), at: performance.now() };
    this.#video.play().catch(() => {});
    this.#firstPicture(session);
  }

  #firstPicture(session) {
    const seen = () => {
      if (session !== this.#shown) return;
      this.#failures = 0;
      this.#frames.at = performance.now();
      this.#enter("playing");
      this.dispatchEvent(new Event("picture"));
    };
    if (this.#video.requestVideoFrameCallback) this.#video.requestVideoFrameCallback(seen);
    else this.#video.addEventListener("timeupdate", seen, { once: true });
  }

  #count() {
    return this.#video.getVideoPlaybackQuality?.().totalVideoFrames ?? 0;
  }

  /** Once a second: do pictures still come? */
  #look() {
    if (!this.#shown || document.hidden) {
      this.#frames.at = performance.now();
      return;
    }
    const count = this.#count();
    const now = performance.now();
    if (count !== this.#frames.count) {
      this.#frames = { count, at: now };
      this.#retries = 0;
      this.#patience = SILENT;
      this.#enter("playing");
    } else if (now - this.#frames.at > this.#patience && this.#shown.connection.connectionState === "connected") {
      // Either the camera stands still, then a new session changes nothing and we ask ever less often, or we do.
      this.#patience = Math.min(this.#patience * 2, 120_000);
      this.#frames.at = now;
      this.#silent();
    }
  }

  async #silent() {
    const session = this.#shown;
    const { received, decoded } = await decoding(session.connection);
    if (session !== this.#shown) return;
    if (received > 0 && decoded === 0) this.#fail("this browser cannot decode what the camera sends");
    else {
      this.#enter("waiting", "No new picture from the camera");
      this.#attempt();
    }
  }

  #broken(session) {
    if (session === this.#shown) this.#shown = null;
    if (session === this.#next) this.#next = null;
    session.close();
    this.#failures += 1;
    if (this.#failures >= ATTEMPTS) this.#fail("WebRTC does not get through to the gateway");
    else this.#again();
  }

  #refused(error) {
    this.#next = null;
    if (!(error instanceof Refused)) {
      this.#again("The gateway does not answer");
      return;
    }
    switch (error.status) {
      case 401:
        reload();
        return;
      // The camera is away, too much was asked, or all places are taken: that passes.
      case 409:
      case 429:
        this.#again(error.message, error.retryAfter);
        return;
      case 502:
      case 503:
      case 504:
        this.#failures += error.status === 503 ? 1 : 0;
        if (this.#failures < ATTEMPTS) this.#again(error.message, error.retryAfter);
        else this.#fail(error.message);
        return;
      default:
        this.#fail(error.message);
    }
  }

  /** Tries once more after a while, ever longer. */
  #again(text = "", after = null) {
    const step = RETRY[Math.min(this.#retries, RETRY.length - 1)];
    this.#retries += 1;
    this.#enter(text ? "waiting" : "connecting", text);
    clearTimeout(this.#timer);
    const wait = Math.max(after ?? 0, step * (0.75 + Math.random() / 2));
    if (this.worthwhile) this.#timer = setTimeout(() => this.#attempt(), wait);
  }

  #fail(text) {
    this.#shown?.close();
    this.#shown = null;
    this.#failures = ATTEMPTS - 1;
    this.#enter("failed", text);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#attempt(), LATER);
  }

  #enter(phase, text = "") {
    // While something else is shown, only a picture changes that.
    if (this.phase === "failed" && (phase === "connecting" || phase === "waiting")) return;
    if (this.phase === phase && this.text === text) return;
    this.phase = phase;
    this.text = text;
    this.dispatchEvent(new Event("phase"));
  }
}

/** Pictures received and decoded by a connection. */
async function decoding(connection) {
  for (const report of (await connection.getStats()).values()) {
    if (report.type === "inbound-rtp" && report.kind === "video") {
      return { received: report.framesReceived ?? 0, decoded: report.framesDecoded ?? 0 };
    }
  }
  return { received: 0, decoded: 0 };
}
