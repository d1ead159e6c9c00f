"use strict";
const page = document.documentElement.dataset;
const byId = (id) => document.getElementById(id);
const summary = byId("summary");
let shown = "";

function address(path) {
  const user = page.user ? `${encodeURIComponent(page.user)}:STREAM_KEY@` : "";
  return `rtsp://${user}${location.hostname}:${page.rtspPort}/${path}`;
}

// Where the clipboard is closed to us, as on plain HTTP, the text is selected for the user to copy.
async function copy(code, button) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(code);
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}

function row(path) {
  const item = byId("address").content.cloneNode(true).firstElementChild;
  const [code, button] = item.children;
  code.textContent = address(path);
  button.setAttribute("aria-label", `Copy the address of ${path}`);
  button.addEventListener("click", () => copy(code, button));
  return item;
}

function card(camera) {
  const item = byId("camera").content.cloneNode(true).firstElementChild;
  item.dataset.name = camera.name;
  const paths = [...new Set([camera.name, ...camera.tracks.map((track) => track.stream)])];
  item.querySelector("h2").textContent = camera.name;
  item.querySelector(".addresses").append(...paths.map((path) => row(path)));
  item.querySelector(".addresses").hidden = !page.rtspPort;
  const playlist = item.querySelector(".playlist");
  playlist.href = `v1/cameras/${encodeURIComponent(camera.name)}/stream.xspf`;
  playlist.parentElement.hidden = !page.rtspPort;
  return item;
}

function tell(item, camera) {
  item.dataset.state = camera.state;
  item.querySelector(".state").textContent = camera.state;
  const reason = item.querySelector(".reason");
  reason.hidden = !camera.reason;
  reason.textContent = camera.reason ?? "";
  const video = camera.tracks.filter((track) => track.kind === "video");
  const pictures = video.map((track) => `${track.width ?? "?"}×${track.height ?? "?"} ${track.codec}, ${track.fps} fps`);
  const viewers = Object.values(camera.viewers).reduce((sum, count) => sum + count, 0);
  const connections = `${camera.upstream_connections} of ${camera.upstream_limit} connections`;
  item.querySelector(".facts").textContent = [...pictures, `${viewers} watching`, connections].join(" · ");
}

function show(cameras) {
  // Cards are made again only when their addresses change, so that a selection or the focus is not lost.
  const layout = JSON.stringify(cameras.map((camera) => [camera.name, camera.tracks.map((track) => track.stream)]));
  if (layout !== shown) {
    byId("cameras").replaceChildren(...cameras.map(card));
    shown = layout;
  }
  cameras.forEach((camera, index) => tell(byId("cameras").children[index], camera));
  byId("empty").hidden = cameras.length > 0;
  byId("key-note").hidden = cameras.length === 0 || !page.user;
  const online = cameras.filter((camera) => camera.state === "online").length;
  const text = cameras.length ? `${online} of ${cameras.length} online` : "";
  if (summary.textContent !== text) summary.textContent = text;
}

async function refresh() {
  if (document.hidden) return;
  try {
    const answer = await fetch("v1/cameras");
    if (!answer.ok) throw new Error(String(answer.status));
    show((await answer.json()).cameras);
  } catch {
    summary.textContent = "Fanlight does not answer; trying again";
  }
}

document.addEventListener("visibilitychange", refresh);
refresh();
setInterval(refresh, 2000);
