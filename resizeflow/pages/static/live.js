// Reads the page again every two seconds and puts in place what has changed, so that focus, scrolling and what was
// unfolded stay as they are. Without this file the page is loaded anew as a whole (see the noscript element).
"use strict";

const EVERY = 2000;
const status = document.getElementById("live-status");

async function renew() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
  if (!answer.ok) throw new Error(String(answer.status));
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const other = fresh.getElementById(part.id);
    if (other && other.innerHTML !== part.dataset.seen) replace(part, other);
  }
  status.textContent = "live";
}

function replace(part, other) {
  const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
  const unfolded = [...part.querySelectorAll("details[open][id]")].map((details) => details.id);
  const scrolled = new Map([...part.querySelectorAll(".wide[id]")].map((box) => [box.id, box.scrollLeft]));
  part.dataset.seen = other.innerHTML;
  part.replaceChildren(...document.importNode(other, true).childNodes);
  for (const id of unfolded) document.getElementById(id)?.setAttribute("open", "");
  for (const [id, left] of scrolled) { const box = document.getElementById(id); if (box) box.scrollLeft = left; }
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

async function keep() {
  try {
    if (!document.hidden) await renew();
  } catch {
    status.textContent = "no answer from the dashboard";
  }
  setTimeout(keep, EVERY);
}

if (document.querySelector("[data-live]")) {
  for (const part of document.querySelectorAll("[data-live]")) part.dataset.seen = part.innerHTML;
  setTimeout(keep, EVERY);
}

document.addEventListener("keydown", (event) => {
  const writing = event.target.closest("input, select, textarea");
  if (event.key === "/" && !writing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    document.getElementById("search").focus();
  }
});
