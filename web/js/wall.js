// The wall: every camera, live while it is on the screen.

import { bells } from "./bells.js";
import { mention, strip } from "./guests.js";
import { announce, banner, byId, checkVersion, copy, kiosk, session } from "./page.js";
import { States, stateSentence } from "./states.js";
import { Tile } from "./tile.js";
import { PEOPLE } from "./visits.js";

// Pictures that move at once. A tablet decodes about as many.
const LIVE = 9;

const wall = byId("wall");
const tiles = new Map();
const states = new States();

const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const tile = tiles.get(target.dataset.name);
    if (tile) tile.seen = isIntersecting;
  }
  schedule();
}, { rootMargin: "80px" });

/** Who moves: the first ones on the screen. Nobody while the page is hidden. */
function schedule() {
  let live = 0;
  for (const tile of tiles.values()) {
    if (document.hidden || !tile.seen) tile.show("off");
    else if (tile.mayBeLive && live < LIVE) {
      live += 1;
      tile.show("live");
    } else tile.show("still");
  }
}

/** The gateway, or the network, is back. */
function hurry() {
  for (const tile of tiles.values()) tile.player.hurry();
}

function list() {
  for (const [name, tile] of tiles) {
    if (states.cameras.has(name)) continue;
    seen.unobserve(tile.element);
    tile.remove();
    tiles.delete(name);
  }
  // The order is the gateway's; a tile that is already there stays where it is, with its picture.
  const ordered = [...states.cameras.keys()].map((name) => tiles.get(name) ?? new Tile(name));
  tiles.clear();
  ordered.forEach((tile, index) => {
    tiles.set(tile.name, tile);
    if (wall.children[index] !== tile.element) wall.insertBefore(tile.element, wall.children[index] ?? null);
    seen.observe(tile.element);
  });
  byId("empty").hidden = ordered.length > 0;
  wall.hidden = ordered.length === 0;
  summarise();
}

function summarise() {
  const cameras = [...states.cameras.values()];
  const online = cameras.filter((camera) => camera.state === "online" || camera.state === "idle").length;
  byId("summary").textContent = cameras.length ? `${online} of ${cameras.length} cameras ready` : "";
}

states.addEventListener("cameras", list);
states.addEventListener("camera", ({ detail: camera }) => {
  const tile = tiles.get(camera.name);
  if (!tile) return;
  const before = tile.camera?.state;
  tile.update(camera);
  if (before && before !== camera.state) announce(`${camera.name}: ${stateSentence(camera)}`);
  summarise();
  schedule();
});
states.addEventListener("lost", () => banner("Fanlight does not answer. Trying again…"));
states.addEventListener("connected", () => {
  banner("");
  announce("Connected again");
  hurry();
  checkVersion();
});
addEventListener("online", hurry);
for (const kind of ["event", "update"]) {
  // What happened has most often changed the picture of a camera that sends one now and then.
  states.addEventListener(kind, ({ detail: event }) => tiles.get(event.camera)?.refresh());
}
states.addEventListener("event", ({ detail: event }) => {
  if (!PEOPLE.includes(event.kind)) mention(event);
});
const { visits } = strip(states);
// The strip takes room from the pictures.
visits.addEventListener("changed", () => fit());
setInterval(() => { for (const tile of tiles.values()) tile.tick(); }, 15_000);
if (!kiosk) bells(states);
document.addEventListener("visibilitychange", schedule);
addEventListener("pagehide", () => { for (const tile of tiles.values()) tile.show("off"); });
addEventListener("pageshow", ({ persisted }) => { if (persisted) schedule(); });
for (const button of document.querySelectorAll("[data-copies]")) {
  button.addEventListener("click", () => copy(byId(button.dataset.copies), button));
}

/** The greatest height of a row at which pictures of these shapes fit into that room; `more` is under each picture. */
function greatest(aspects, width, height, gap, more) {
  const rows = (row) => {
    let [count, room] = [1, width];
    for (const aspect of aspects) {
      const wide = Math.min(aspect * row, width);
      if (wide > room && room < width) [count, room] = [count + 1, width];
      room -= wide + gap;
    }
    return count;
  };
  let [low, high] = [40, height];
  while (high - low > 1) {
    const middle = (low + high) / 2;
    if (rows(middle) * (middle + more + gap) - gap <= height) low = middle;
    else high = middle;
  }
  return Math.floor(low);
}

/** On a wall tablet all pictures fit on the screen; elsewhere they do if that does not make them small. */
function fit() {
  const [first, last] = [wall.firstElementChild, wall.lastElementChild];
  if (!first) return;
  wall.style.removeProperty("--row");
  const aspects = [...tiles.values()].map((tile) => tile.aspect);
  const { width, top } = wall.getBoundingClientRect();
  const gap = Number.parseFloat(getComputedStyle(wall).columnGap) || 0;
  const more = kiosk ? 0 : first.querySelector(".caption").offsetHeight + 2;
  // A new doorbell is there for a while only: it moves the pictures down and makes none of them smaller.
  const bell = byId("bells").offsetHeight;
  const height = kiosk ? innerHeight : innerHeight - (top + scrollY) - gap + (bell && bell + gap);
  const row = greatest(aspects, width, height, gap, more);
  const few = kiosk || (innerWidth > 640 && row > Math.max(176, Math.min(innerWidth * 0.17, 416)));
  wall.classList.toggle("few", few);
  if (few) wall.style.setProperty("--row", `${row}px`);
  // Rows reach both edges where that still fits.
  wall.classList.toggle("even", few && !kiosk);
  if (!bell && wall.getBoundingClientRect().bottom + scrollY > innerHeight) wall.classList.remove("even");
  // The last row of several is not stretched, unless that makes it end with the others and hardly any taller.
  wall.classList.remove("rows");
  const ends = [...wall.children].filter((tile) => tile.offsetTop === last.offsetTop);
  const natural = ends.reduce((sum, tile) => sum + Number.parseFloat(getComputedStyle(tile).flexBasis) + gap, -gap);
  wall.classList.toggle("rows", last.offsetTop > first.offsetTop && !(natural > 0.8 * width));
}
addEventListener("resize", fit);
wall.addEventListener("reshape", fit);
states.addEventListener("cameras", fit);

session();
states.start();
