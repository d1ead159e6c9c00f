"use strict";
// The form works without this as well; with it the page stays while the password is checked.
const form = document.getElementById("sign-in");
const words = document.getElementById("words");
const button = form.querySelector("button");

function tell(text) {
  words.textContent = text;
  words.hidden = false;
  form.password.setAttribute("aria-invalid", "true");
  form.password.select();
  form.password.focus();
}

function goOn() {
  const target = new URL(form.dataset.root + form.next.value.slice(1), location.href);
  // Going where we are already would only move within the page.
  if (target.pathname === location.pathname && target.search === location.search) {
    location.reload();
  } else {
    location.replace(target);
  }
}

async function signIn() {
  try {
    const answer = await fetch(form.action, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ name: form.elements.name.value.trim(), password: form.password.value }),
    });
    if (answer.ok) return goOn();
    if (answer.status === 401) return tell("Wrong name or password.");
    if (answer.status === 429) return tell("Too many wrong passwords from this address. Wait a minute.");
    const problem = await answer.json().catch(() => ({}));
    tell(problem.detail ?? `Fanlight answers ${answer.status}.`);
  } catch {
    tell("Fanlight does not answer.");
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  button.disabled = true;
  signIn().finally(() => { button.disabled = false; });
});
