// What all pages share: where the gateway is, asking it, who is signed in, and telling people things.

/** The gateway's address, whatever path prefix a proxy put before it: this file is always at assets/js/. */
export const root = new URL("../../", import.meta.url);
export const facts = document.documentElement.dataset;
export const kiosk = new URLSearchParams(location.search).has("kiosk");
export const byId = (id) => document.getElementById(id);

const opened = Date.now();
let leaving = false;

/** An address of the gateway. */
export const at = (path) => new URL(path, root).href;

/** The address of a page, which stays a kiosk if this one is. */
export const pageOf = (name) => at(name ? `camera/${encodeURIComponent(name)}` : "") + (kiosk ? "?kiosk" : "");

/** The address of the gallery, of one camera if it is named. */
export function galleryOf(name) {
  const query = new URLSearchParams(name ? { camera: name } : {});
  if (kiosk) query.set("kiosk", "");
  return at("visitors") + (query.size ? `?${query}` : "");
}

/** An element with these properties, attributes (`data-` and `aria-`) and children. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** Loads the page again: whoever is not signed in gets the sign-in page instead. Never in a fast loop. */
export function reload() {
  if (leaving) return;
  leaving = true;
  setTimeout(() => location.reload(), Math.max(0, 3000 - (Date.now() - opened)));
}

/** `fetch` that goes to the sign-in page when the session has ended. */
export async function ask(path, options) {
  const answer = await fetch(at(path), options);
  if (answer.status === 401) reload();
  return answer;
}

/** What the gateway said about an answer that was not what we asked for. */
export async function detail(answer) {
  try {
    return (await answer.json()).detail ?? answer.statusText;
  } catch {
    return answer.statusText || `HTTP status ${answer.status}`;
  }
}

/** Says it to screen readers. */
export function announce(text) {
  byId("announcer").textContent = text;
}

/** Shows a line at the edge of the page for a while. */
export function toast(text, href) {
  const line = document.createElement(href ? "a" : "p");
  line.className = "toast";
  line.textContent = text;
  if (href) line.href = href;
  const toasts = byId("toasts");
  while (toasts.children.length > 2) toasts.firstElementChild.remove();
  toasts.append(line);
  setTimeout(() => line.remove(), 6000);
}

/** The line above everything else; no text hides it. */
export function banner(text) {
  const line = byId("banner");
  if (line.textContent !== text) line.textContent = text;
  line.hidden = !text;
}

/** Puts the text on the clipboard. Where that is closed to us, as on plain HTTP, selects it for the user to copy. */
export async function copy(source, button) {
  const label = button.dataset.label ??= button.textContent;
  const text = source.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(source);
    let copied = false;
    try {
      copied = document.execCommand("copy");
    } catch {
      // Selected is what remains.
    }
    button.textContent = copied ? "Copied" : "Selected";
  }
  announce(button.textContent);
  setTimeout(() => { button.textContent = label; }, 2000);
}

/** Shows who is signed in. Answers the name, or `null` where nobody needs to. */
export async function session() {
  try {
    const answer = await ask("v1/session");
    if (!answer.ok) return null;
    const { user } = await answer.json();
    if (user) {
      byId("user").textContent = user;
      byId("who").hidden = false;
      byId("sign-out").addEventListener("click", signOut);
    }
    return user;
  } catch {
    return null;
  }
}

async function signOut() {
  try {
    await fetch(at("v1/session"), { method: "DELETE" });
  } finally {
    location.reload();
  }
}

/** After the gateway was away: is it a newer one, whose pages differ from this? A wall tablet just loads them. */
export async function checkVersion() {
  try {
    const answer = await ask("assets/version", { cache: "no-store" });
    if (!answer.ok || (await answer.text()).trim() === facts.version) return;
    if (kiosk) reload();
    else toast("Fanlight was updated: load this page again", location.href);
  } catch {
    // It is away again; the next return asks again.
  }
}

/** No pointer after three seconds, and the screen stays on. */
function startKiosk() {
  document.documentElement.classList.add("kiosk");
  let timer;
  const wake = () => {
    document.documentElement.classList.remove("resting");
    clearTimeout(timer);
    timer = setTimeout(() => document.documentElement.classList.add("resting"), 3000);
  };
  for (const kind of ["pointermove", "pointerdown", "keydown"]) addEventListener(kind, wake, { passive: true });
  wake();
  const stayOn = () => {
    if (!document.hidden) navigator.wakeLock?.request("screen").catch(() => {});
  };
  document.addEventListener("visibilitychange", stayOn);
  stayOn();
}

if (kiosk) startKiosk();
