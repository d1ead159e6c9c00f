// The gallery: everybody who was at the doors, as far as the gateway keeps it.

import { announce, banner, byId, checkVersion, make, pageOf, session } from "./page.js";
import { Cards } from "./guests.js";
import { States } from "./states.js";
import { Visits, spoken } from "./visits.js";

const states = new States();
const [choice, older] = [byId("camera"), byId("older")];
const asked = new URLSearchParams(location.search).get("camera") || null;
const visits = new Visits(states, { camera: asked, limit: 24, most: 200 });
const cards = new Cards(byId("gallery"), visits, { named: !asked });
byId("back").href = pageOf();

/** Cameras that there are, and the one that was asked for: its visits are kept although it may be gone. */
function offer(names) {
  for (const name of names) {
    if ([...choice.options].some(({ value }) => value === name)) continue;
    choice.append(make("option", { value: name, textContent: spoken(name) }));
  }
  choice.value = asked && !choice.dataset.changed ? asked : choice.value;
}
if (asked) offer([asked]);

choice.addEventListener("change", () => {
  choice.dataset.changed = "yes";
  const address = new URL(location.href);
  if (choice.value) address.searchParams.set("camera", choice.value);
  else address.searchParams.delete("camera");
  history.replaceState(null, "", address);
  cards.named = !choice.value;
  visits.show(choice.value || null);
});

older.addEventListener("click", async () => {
  const before = visits.list.length;
  await visits.older();
  // Where the button goes, the focus goes on to the first of those that came.
  if (older.hidden) byId("gallery").children[before]?.querySelector("button").focus();
  announce(`${visits.list.length - before} more`);
});

function tell() {
  byId("empty").hidden = visits.list.length > 0;
  older.hidden = !visits.next;
}
visits.addEventListener("changed", tell);

states.addEventListener("cameras", () => offer(states.cameras.keys()));
states.addEventListener("lost", () => banner("Fanlight does not answer. Trying again…"));
states.addEventListener("connected", () => {
  banner("");
  announce("Connected again");
  checkVersion();
});

session();
states.start();
