// One camera on the wall: live while it is seen, otherwise a still.

import { at, byId, pageOf } from "./page.js";
import { Player } from "./player.js";
import { ago, isRestful, shape, stateSentence, stateWord, trackWords, videoTrack, watching } from "./states.js";
import { Still } from "./still.js";

const WIDE = 16 / 9;
// A live picture is there sooner than the gateway has decoded a still. Where it is not, a still helps.
const LATE = 600;

export class Tile {
  seen = false;
  #camera = null;
  #mode = "off";
  /** When the still was taken, by our clock; `null` where there is none. */
  #taken = null;
  #late = null;
  aspect = WIDE;

  constructor(name) {
    this.name = name;
    this.element = byId("tile").content.cloneNode(true).firstElementChild;
    this.element.dataset.name = name;
    const part = (selector) => this.element.querySelector(selector);
    [this.image, this.video, this.badge, this.cover, this.facts] =
      ["img", "video", ".badge", ".cover", ".facts"].map(part);
    this.link = part(".name a");
    this.link.textContent = name;
    this.link.href = pageOf(name);
    this.player = new Player(this.video, at(`whep/${encodeURIComponent(name)}`));
    this.player.addEventListener("phase", () => this.#tell());
    this.video.addEventListener("resize", () => this.#reshape());
    this.still = new Still(this.image, name, {
      changed: (age) => {
        this.#taken = age === null ? null : Date.now() - age * 1000;
        this.image.hidden = age === null && !this.image.src;
        this.#reshape();
        this.#tell();
      },
    });
  }

  get camera() {
    return this.#camera;
  }

  /** A wall must not keep a camera awake that is to sleep while nobody looks. */
  get mayBeLive() {
    const camera = this.#camera;
    return this.seen && camera !== null && !camera.on_demand && camera.state === "online" && !isRestful(camera);
  }

  update(camera) {
    const more = camera.frames > (this.#camera?.frames ?? Infinity);
    this.#camera = camera;
    if (more && isRestful(camera)) this.refresh();
    this.element.dataset.state = camera.state;
    this.#reshape();
    this.#tell();
  }

  /** `live`, `still` or `off`. */
  show(mode) {
    if (this.#mode === mode) return;
    this.#mode = mode;
    if (mode === "live") this.player.start();
    else this.player.stop();
    this.#stills();
    this.#tell();
  }

  /** There is a newer still. */
  refresh() {
    if (this.#mode === "still" || this.player.phase === "failed") this.still.fetch();
  }

  /** Time has passed. */
  tick() {
    this.#tell();
  }

  remove() {
    this.show("off");
    this.element.remove();
  }

  /** Stills while nothing moves. */
  #stills() {
    const { phase } = this.player;
    // There is nothing to ask for before the first picture of all, and of a camera that is away the last one will do.
    const some = this.#camera?.last_frame_age_ms != null;
    const away = this.#camera?.state !== "online" && this.image.src;
    if (some && !away && (this.#mode === "still" || (this.#mode === "live" && phase === "failed"))) this.still.start();
    else this.still.stop();
    clearTimeout(this.#late);
    if (some && this.#mode === "live" && phase === "connecting") {
      this.#late = setTimeout(() => this.still.fetch(), LATE);
    }
  }

  #reshape() {
    const track = this.#camera && videoTrack(this.#camera);
    const { videoWidth, videoHeight } = this.video;
    const still = this.still.width ? this.still.width / this.still.height : 0;
    const aspect = shape(track) || still || (videoWidth && videoWidth / videoHeight) || WIDE;
    if (Math.abs(aspect - this.aspect) < 0.005) return;
    this.aspect = aspect;
    this.element.style.setProperty("--aspect", aspect.toFixed(4));
    this.element.dispatchEvent(new Event("reshape", { bubbles: true }));
  }

  #tell() {
    const camera = this.#camera;
    if (!camera) return;
    const { phase, text } = this.player;
    const playing = this.#mode === "live" && phase === "playing" && camera.state === "online";
    this.element.classList.toggle("moving", this.#mode === "live" && phase === "playing");
    this.#stills();

    let [badge, cover] = ["", ""];
    if (playing) badge = "Live";
    else if (camera.state === "online") {
      const still = this.#mode === "still" || phase === "failed";
      if (still) badge = isRestful(camera) && this.#taken !== null ? ago((Date.now() - this.#taken) / 1000) : "Still";
      if (still && this.#taken === null && !this.image.src) [badge, cover] = ["", "No picture yet"];
      if (this.#mode === "live" && phase === "waiting") cover = text;
    } else {
      badge = stateWord(camera);
      // A camera that sleeps is in order: its last picture is shown as it is.
      if (camera.state !== "idle" || this.image.hidden) cover = stateSentence(camera);
    }
    put(this.badge, badge);
    put(this.cover, cover);
    this.badge.title = phase === "failed" ? text : "";
    const count = watching(camera);
    put(this.facts, [count ? `${count} watching` : "", trackWords(videoTrack(camera))].filter(Boolean).join(" · "));
  }
}

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
  element.hidden = !text;
}
