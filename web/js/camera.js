// One camera, large.

import { mention, strip } from "./guests.js";
import { announce, at, banner, byId, checkVersion, copy, facts, kiosk, pageOf, session } from "./page.js";
import { Player } from "./player.js";
import { States, ago, codecName, isRestful, shape, squareness, stateSentence, stateWord, trackWords, videoTrack } from "./states.js";
import { Meter } from "./stats.js";
import { Still } from "./still.js";
import { PEOPLE } from "./visits.js";

// A live picture is there sooner than the gateway has decoded a still. Where it is not, a still helps.
const LATE = 400;
// Where the page is hidden this long, its pictures stop; not in picture-in-picture, nor with sound on.
const REST = 10_000;

const name = decodeURIComponent(location.pathname.split("/").filter(Boolean).at(-1));
const path = encodeURIComponent(name);
const [stage, screen, video, mjpeg, cover, badge] = ["stage", "screen", "video", "mjpeg", "cover", "badge"].map(byId);
const states = new States();
let camera = null;
let sub = false;
let user = null;

const streamName = () => (sub ? `${name}/sub` : name);
const whep = () => at(`whep/${path}${sub ? "/sub" : ""}`);
const player = new Player(video, whep());
/** When the still was taken, by our clock; `null` where there is none. */
let taken = null;
const still = new Still(byId("still"), name, {
  changed: (age) => {
    taken = age === null ? null : Date.now() - age * 1000;
    reshape();
    tell();
  },
});

document.title = `${name} · Fanlight`;
byId("title").textContent = name;
byId("back").href = pageOf();
for (const link of document.querySelectorAll("[data-path]")) link.href = at(link.dataset.path.replace("NAME", path));
byId("snapshot").download = `${name}.jpg`;

// The picture

function reshape() {
  const track = camera && videoTrack(camera, streamName());
  const moving = video.videoWidth ? (video.videoWidth / video.videoHeight) * squareness(track) : 0;
  const other = mjpeg.naturalWidth ? mjpeg.naturalWidth / mjpeg.naturalHeight : 0;
  const resting = still.width ? still.width / still.height : 0;
  const aspect = shape(track) || resting || other || moving || 16 / 9;
  stage.style.setProperty("--aspect", aspect.toFixed(4));
}

/** What is shown in place of WebRTC. */
function showMjpeg(on) {
  if (on === !mjpeg.hidden) return;
  mjpeg.hidden = !on;
  if (on) renewMjpeg();
  else mjpeg.removeAttribute("src");
}

let again = null;
let asked = 0;
/** Asks for the pictures anew. Browsers tell nobody when a picture that has moved stops moving. */
function renewMjpeg() {
  if (mjpeg.hidden) return;
  asked = performance.now();
  mjpeg.src = at(`v1/cameras/${path}/mjpeg?${sub ? "stream=sub&" : ""}asked=${Math.round(asked)}`);
}
// Whatever cut the connection without anybody noticing.
setInterval(renewMjpeg, 60_000);
mjpeg.addEventListener("error", () => {
  if (mjpeg.hidden) return;
  clearTimeout(again);
  again = setTimeout(() => {
    if (player.phase === "failed") renewMjpeg();
  }, 5000);
});
mjpeg.addEventListener("load", reshape);

function tell() {
  const { phase, text } = player;
  const playing = phase === "playing";
  const fallback = phase === "failed";
  screen.classList.toggle("moving", playing);
  showMjpeg(fallback);
  const away = camera && camera.state !== "online" && camera.state !== "idle";
  const rests = camera && isRestful(camera);
  let words = "";
  if (away) words = stateSentence(camera);
  else if (rests) words = taken === null ? "No picture yet" : "";
  else if (phase === "waiting") words = text;
  put(cover, words);
  screen.dataset.phase = phase;
  if (rests) put(badge, taken === null ? "" : ago((Date.now() - taken) / 1000));
  else put(badge, away ? "" : { playing: "Live", failed: "MJPEG", connecting: "Connecting…", waiting: "Waiting" }[phase] ?? "");
  put(byId("note"), fallback ? `Shown as MJPEG, because ${text}. WebRTC is tried again every minute.` : "");
  controls();
}

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
  element.hidden = !text;
}

player.addEventListener("phase", tell);
player.addEventListener("picture", () => {
  // For whoever measures: from the start of loading this page.
  if (!performance.getEntriesByName("first picture").length) performance.mark("first picture");
});
video.addEventListener("resize", reshape);

// Controls

const buttons = Object.fromEntries(
  ["sound", "figures", "pip", "full"].map((id) => [id, byId(id)]),
);

function controls() {
  // A second stream that the camera does not have is served by the main one.
  const own = camera?.tracks.some((track) => track.stream === streamName());
  const heard = own ? streamName() : name;
  const hasSound = camera?.tracks.some((track) => track.kind === "audio" && track.stream === heard);
  const webrtc = player.phase !== "failed";
  const rests = camera !== null && isRestful(camera);
  buttons.sound.hidden = !hasSound || !webrtc || rests;
  press(buttons.sound, !video.muted, video.muted ? "Sound on" : "Sound off");
  buttons.pip.hidden = !document.pictureInPictureEnabled || !webrtc || rests;
  press(buttons.pip, document.pictureInPictureElement === video);
  const full = document.fullscreenElement === stage;
  buttons.full.hidden = !document.fullscreenEnabled && !video.webkitEnterFullscreen;
  press(buttons.full, full, full ? "Leave full screen" : "Full screen");
  buttons.figures.hidden = !webrtc || rests;
  byId("streams").hidden = !(camera?.sub ?? camera?.tracks.some((track) => track.stream === `${name}/sub`));
}

function press(button, pressed, label) {
  button.setAttribute("aria-pressed", String(pressed));
  if (label) {
    button.setAttribute("aria-label", label);
    button.title = `${label} (${button.dataset.key})`;
  }
}

const acts = {
  sound() {
    video.muted = !video.muted;
    player.listen(!video.muted);
    announce(video.muted ? "Sound off" : "Sound on");
    controls();
  },
  figures() {
    const shown = byId("stats").hidden;
    byId("stats").hidden = !shown;
    press(buttons.figures, shown);
    if (shown) measure();
  },
  async pip() {
    try {
      if (document.pictureInPictureElement) await document.exitPictureInPicture();
      else await video.requestPictureInPicture();
    } catch {
      announce("This browser does not allow picture-in-picture now");
    }
  },
  async full() {
    try {
      if (document.fullscreenElement) await document.exitFullscreen();
      else if (stage.requestFullscreen) await stage.requestFullscreen();
      else video.webkitEnterFullscreen();
    } catch {
      announce("This browser does not allow full screen now");
    }
  },
};
for (const [id, act] of Object.entries(acts)) buttons[id].addEventListener("click", act);
for (const kind of ["enterpictureinpicture", "leavepictureinpicture"]) video.addEventListener(kind, controls);
document.addEventListener("fullscreenchange", controls);

for (const radio of document.querySelectorAll("[name=stream]")) {
  radio.addEventListener("change", () => {
    sub = radio.value === "sub";
    player.change(whep());
    still.stream = sub ? "sub" : null;
    byId("snapshot").href = at(snapshotOf(sub));
    byId("snapshot").download = sub ? `${name}-sub.jpg` : `${name}.jpg`;
    renewMjpeg();
    describe();
    tell();
  });
}

function neighbour(step) {
  const names = [...states.cameras.keys()];
  const index = names.indexOf(name);
  if (index < 0 || names.length < 2) return null;
  return names[(index + step + names.length) % names.length];
}

const keys = {
  f: () => acts.full(),
  m: () => buttons.sound.hidden || acts.sound(),
  p: () => buttons.pip.hidden || acts.pip(),
  s: () => buttons.figures.hidden || acts.figures(),
  Escape: () => document.fullscreenElement || go(pageOf()),
  ArrowLeft: () => neighbour(-1) && go(pageOf(neighbour(-1))),
  ArrowRight: () => neighbour(1) && go(pageOf(neighbour(1))),
};

function go(address) {
  location.href = address;
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("input, select, textarea")) return;
  // Its keys are its own.
  if (document.querySelector("dialog[open]")) return;
  const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act) return;
  event.preventDefault();
  act();
});
// On a wall tablet a tap leads back to the wall.
if (kiosk) video.addEventListener("click", () => go(pageOf()));
else video.addEventListener("dblclick", () => acts.full());

const meter = new Meter();
async function measure() {
  const list = byId("stats");
  if (list.hidden || document.hidden && !document.pictureInPictureElement) return;
  const rows = player.connection ? await meter.read(player.connection) : [];
  const track = camera && videoTrack(camera);
  const shown = rows.length ? rows : [["Picture", track ? trackWords(track) : "none yet"]];
  list.replaceChildren(...shown.flatMap(([term, value]) => {
    const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
    dt.textContent = term;
    dd.textContent = value;
    return [dt, dd];
  }));
}
setInterval(measure, 1000);

// What is known of the camera

function address(scheme, port, stream) {
  const login = user ? `${encodeURIComponent(user)}@` : "";
  return `${scheme}://${login}${location.hostname}:${port}/${stream}`;
}

const snapshotOf = (second) => `v1/cameras/${path}/snapshot.jpg${second ? "?stream=sub" : ""}`;

let written = "";
function addresses() {
  const streams = [...new Set([name, ...(camera?.tracks ?? []).map((track) => track.stream)])];
  const rows = [];
  for (const [scheme, label, port] of [["rtsp", "RTSP", facts.rtspPort], ["rtsps", "RTSPS", facts.rtspsPort]]) {
    if (!port) continue;
    for (const stream of streams) {
      rows.push([stream === name ? label : `${label}, second stream`, address(scheme, port, stream)]);
    }
  }
  for (const [label, file] of [["Snapshot", "snapshot.jpg"], ["MJPEG", "mjpeg"]]) {
    rows.push([label, at(`v1/cameras/${path}/${file}`)]);
    if (streams.includes(`${name}/sub`)) rows.push([`${label}, second stream`, at(`v1/cameras/${path}/${file}?stream=sub`)]);
  }
  // Made again only when they differ, so that a selection or the focus is not lost.
  const layout = JSON.stringify(rows);
  if (layout === written) return;
  written = layout;
  byId("addresses").replaceChildren(...rows.map(([label, text]) => {
    const item = byId("address").content.cloneNode(true).firstElementChild;
    item.querySelector("span").textContent = label;
    item.querySelector("code").textContent = text;
    const button = item.querySelector("button");
    button.setAttribute("aria-label", `Copy the ${label} address`);
    button.addEventListener("click", () => copy(item.querySelector("code"), button));
    return item;
  }));
  byId("vlc").hidden = !facts.rtspPort;
  byId("key-note").hidden = !user || !facts.rtspPort;
}

function describe() {
  addresses();
  if (!camera) return;
  put(byId("state"), stateWord(camera));
  byId("state").dataset.state = camera.state;
  const rows = [["State", stateSentence(camera)]];
  for (const track of camera.tracks) {
    const what = track.kind === "video" ? trackWords(track) : codecName(track.codec);
    const stream = track.stream === name ? "Main stream" : "Second stream";
    rows.push([`${stream}, ${track.kind}`, track.native ? what : `${what}, made for browsers`]);
  }
  const { webrtc, rtsp, mjpeg: pictures } = camera.viewers;
  rows.push(["Watching", `${webrtc} in browsers, ${rtsp} by RTSP, ${pictures} by MJPEG`]);
  if (camera.family === "mini_doorbell" || camera.family === "push") rows.push(["Connections", "it calls us"]);
  else rows.push(["Connections", `${camera.upstream_connections} of ${camera.upstream_limit} to the camera`]);
  rows.push(["Since", new Date(camera.since).toLocaleString()]);
  const list = byId("about");
  rows.forEach(([term, value], index) => {
    const [dt, dd] = [list.children[2 * index], list.children[2 * index + 1]];
    if (dt) {
      if (dt.textContent !== term) dt.textContent = term;
      if (dd.textContent !== value) dd.textContent = value;
      return;
    }
    const made = [document.createElement("dt"), document.createElement("dd")];
    made[0].textContent = term;
    made[1].textContent = value;
    list.append(...made);
  });
  while (list.children.length > 2 * rows.length) list.lastElementChild.remove();
  reshape();
}

states.addEventListener("cameras", () => {
  for (const [id, step] of [["before", -1], ["after", 1]]) {
    const other = neighbour(step);
    byId(id).hidden = !other;
    if (!other) continue;
    byId(id).href = pageOf(other);
    byId(id).setAttribute("aria-label", `${step < 0 ? "Previous" : "Next"} camera: ${other}`);
  }
  const known = states.cameras.has(name);
  byId("missing").hidden = known;
  byId("shown").hidden = !known;
  if (!known) {
    player.stop();
    still.stop();
    camera = null;
    put(byId("state"), "");
  }
});
states.addEventListener("camera", ({ detail }) => {
  if (detail.name !== name) return;
  const before = camera?.state;
  const more = camera !== null && detail.frames > camera.frames;
  camera = detail;
  if (before && before !== camera.state) announce(stateSentence(camera));
  player.worthwhile = camera.state !== "offline";
  if (before && before !== "online" && camera.state === "online") player.hurry();
  rest();
  if (more && isRestful(camera)) still.fetch();
  // Nobody reads the pictures that we believe to be shown: the connection is gone.
  if (!mjpeg.hidden && camera.viewers.mjpeg === 0 && performance.now() - asked > 3000) renewMjpeg();
  const trouble = camera.tracks.find((track) => !track.native && track.reason && track.kind === "video" && track.codec !== "jpeg");
  if (trouble) player.giveUp(trouble.reason);
  describe();
  tell();
});
for (const kind of ["event", "update"]) {
  states.addEventListener(kind, ({ detail: event }) => {
    if (event.camera === name && camera && isRestful(camera)) still.fetch();
    else if (kind === "event" && !(event.camera === name && PEOPLE.includes(event.kind))) mention(event);
  });
}
// A wall tablet shows who is at any door.
strip(states, kiosk ? null : name);
setInterval(tell, 15_000);

states.addEventListener("lost", () => banner("Fanlight does not answer. Trying again…"));
states.addEventListener("connected", () => {
  banner("");
  announce("Connected again");
  player.renew();
  renewMjpeg();
  checkVersion();
});

/** A camera that sends a picture now and then shows that one; all others move. */
function rest() {
  const rests = camera !== null && isRestful(camera);
  if (rests && player.phase !== "stopped") player.stop();
  if (!rests && player.phase === "stopped" && !document.hidden) player.start();
  if (rests && !document.hidden && camera.last_frame_age_ms !== null) still.start();
  else still.stop();
}

let resting = null;
document.addEventListener("visibilitychange", () => {
  clearTimeout(resting);
  rest();
  if (document.hidden) resting = setTimeout(() => {
    if (!document.pictureInPictureElement && video.muted) player.stop();
  }, REST);
});
addEventListener("online", () => player.hurry());
addEventListener("pagehide", () => player.stop());
addEventListener("pageshow", ({ persisted }) => persisted && rest());

// The picture first: nothing of the rest is needed for it.
if (!document.hidden) player.start();
setTimeout(() => {
  const some = !camera || camera.last_frame_age_ms !== null;
  if (some && player.phase !== "playing") still.fetch();
}, LATE);
states.start();
session().then((found) => {
  user = found;
  addresses();
});
