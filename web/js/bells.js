// Doorbells that rang here and stand in no configuration: each with its picture and the lines to paste.

import { announce, ask, at, byId, copy, make } from "./page.js";
import { since, whenWords } from "./visits.js";

const HIDDEN = "fanlight-hidden-bells";
const section = byId("bells");
const cards = new Map();
let asking = false;
let more = false;

function hidden() {
  try {
    return JSON.parse(localStorage.getItem(HIDDEN) ?? "[]");
  } catch {
    return [];
  }
}

function hide(id) {
  try {
    localStorage.setItem(HIDDEN, JSON.stringify([...hidden().slice(-99), id]));
  } catch {
    // Then it comes back with the page.
  }
  remove(id);
}

function remove(id) {
  cards.get(id)?.remove();
  cards.delete(id);
  section.hidden = cards.size === 0;
}

function card(bell) {
  const title = make("h2", { textContent: "New doorbell" });
  const code = make("code", { textContent: bell.config });
  const button = make("button", { type: "button", textContent: "Copy", "aria-label": "Copy the lines for the configuration" });
  button.addEventListener("click", () => copy(code, button));
  const lines = make("pre", { tabIndex: 0, "aria-label": "Lines for the configuration" }, code);
  const away = make("button", { type: "button", className: "quiet", textContent: "Hide", "aria-label": `Hide doorbell ${bell.id}` });
  away.addEventListener("click", () => hide(bell.id));
  const image = make("img", { alt: "What the doorbell sees", hidden: true });
  image.addEventListener("error", () => { image.hidden = true; });
  return make("article", { className: "card bell", "data-id": bell.id }, image,
    make("div", {}, make("div", { className: "head" }, title, away), make("p", { className: "rang" }),
      make("p", { className: "soft", textContent: "To have it as a camera, put this below cameras: in fanlight.yaml, and give it a name you like." }),
      make("div", { className: "snippet" }, lines, button)));
}

function fill(element, bell) {
  const times = bell.visits === 1 ? "once" : `${bell.visits} times`;
  const words = `It rang ${times}, last ${whenWords({ at: bell.last_seen })}, and is in no configuration. Its id is ${bell.id}.`;
  const line = element.querySelector(".rang");
  if (line.textContent !== words) line.textContent = words;
  const image = element.querySelector("img");
  if (!bell.picture) return;
  // The address stays the same while its picture changes.
  const address = `${at(bell.picture.slice(1))}?at=${encodeURIComponent(bell.last_seen)}`;
  if (image.dataset.shows === address) return;
  image.dataset.shows = address;
  image.hidden = false;
  image.src = address;
}

async function refresh() {
  more = asking;
  if (asking) return;
  asking = true;
  try {
    const answer = await ask("v1/mini-doorbell/unknown", { cache: "no-store" });
    if (!answer.ok) return;
    const gone = hidden();
    const unknown = (await answer.json()).unknown.filter(({ id }) => !gone.includes(id));
    for (const id of [...cards.keys()]) if (!unknown.some((bell) => bell.id === id)) remove(id);
    for (const bell of unknown) {
      if (!cards.has(bell.id)) {
        cards.set(bell.id, card(bell));
        section.append(cards.get(bell.id));
        if (since({ at: bell.last_seen }) < 60) announce("A new doorbell rang");
      }
      fill(cards.get(bell.id), bell);
    }
    section.hidden = cards.size === 0;
  } catch {
    // The page says elsewhere that the gateway is away.
  } finally {
    asking = false;
    if (more) refresh();
  }
}

/** Shows them, and those that come. They are asked for only if one was told of: most houses have none. */
export async function bells(states) {
  for (const kind of ["event", "update"]) {
    states.addEventListener(kind, ({ detail }) => detail.kind === "new_doorbell" && refresh());
  }
  // One that was put into the configuration is unknown no more.
  states.addEventListener("cameras", () => cards.size && refresh());
  const look = async () => {
    try {
      const answer = await ask("v1/events?kind=new_doorbell&limit=1", { cache: "no-store" });
      if (answer.ok && (await answer.json()).events.length) refresh();
      else for (const id of [...cards.keys()]) remove(id);
    } catch {
      // As above.
    }
  };
  states.addEventListener("open", look);
  setInterval(() => cards.size && !document.hidden && refresh(), 60_000);
}
