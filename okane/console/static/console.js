// Live regions, times in the browser's zone, copy buttons, and dialogs for browsers without `command`.
"use strict";

const INTERVAL_MS = 2000;
const LONGEST_PAUSE_MS = 30000;
const away = document.getElementById("away");
const zone = document.getElementById("zone");
const etags = new WeakMap();
let failures = 0;
let timer = 0;

// ---- Live regions: <section data-live="ADDRESS">
const callbacks = {
  // An open dialog keeps its content, and so the version that was shown; a <details> stays as the reader left it.
  beforeNodeMorphed: (node) => !(node instanceof HTMLDialogElement && node.open),
  beforeNodeRemoved: (node) => !(node instanceof Element && (node.matches("dialog[open]") || node.querySelector("dialog[open]"))),
  beforeAttributeUpdated: (name, node) => !(name === "open" && node instanceof HTMLDetailsElement),
};

async function refresh(region) {
  const etag = etags.get(region);
  const answer = await fetch(region.dataset.live, {
    headers: etag ? { "If-None-Match": etag } : {},
    cache: "no-store",
    redirect: "manual",
    signal: AbortSignal.timeout(10000),
  });
  if (answer.status === 304) return;
  if (answer.status >= 500 || answer.status === 429) throw new Error(`HTTP ${answer.status}`);
  if (!answer.ok) return location.reload(); // the session ended, or the page is gone: the server says which
  const part = document.createElement("template");
  part.innerHTML = await answer.text();
  showTimes(part.content);
  Idiomorph.morph(region, [...part.content.childNodes], { morphStyle: "innerHTML", ignoreActiveValue: true, callbacks });
  // What an open dialog has kept back must come once it is closed.
  etags.set(region, region.querySelector("dialog[open]") ? "" : answer.headers.get("ETag"));
}

async function poll() {
  clearTimeout(timer);
  timer = 0;
  const regions = [...document.querySelectorAll("[data-live]")];
  if (document.hidden || !regions.length) return;
  const results = await Promise.allSettled(regions.map(refresh));
  const failed = results.some((result) => result.status === "rejected");
  failures = failed ? failures + 1 : 0;
  // Set once for each outage: a screen reader announces every change of it.
  if (!failed) away.textContent = "";
  else if (!away.textContent) away.textContent = `${away.dataset.text} ${written(new Date(), localZone())}.`;
  clearTimeout(timer);
  timer = setTimeout(poll, Math.min(INTERVAL_MS * 2 ** Math.max(0, failures - 1), LONGEST_PAUSE_MS));
}

document.addEventListener("visibilitychange", poll);

// ---- Times: <time datetime>, in UTC from the server
const localZone = () => (localStorage.getItem("zone") === "local" ? Intl.DateTimeFormat().resolvedOptions().timeZone : "UTC");

function written(at, timeZone) {
  const style = { timeZone, dateStyle: undefined, hourCycle: "h23", timeZoneName: "longOffset" };
  for (const part of ["year", "month", "day", "hour", "minute", "second"]) style[part] = part === "year" ? "numeric" : "2-digit";
  const parts = new Intl.DateTimeFormat("en", { ...style, fractionalSecondDigits: 3 }).formatToParts(at);
  const of = Object.fromEntries(parts.map((part) => [part.type, part.value]));
  const name = timeZone === "UTC" ? "UTC" : of.timeZoneName;
  return `${of.year}-${of.month}-${of.day} ${of.hour}:${of.minute}:${of.second}.${of.fractionalSecond} ${name}`;
}

function showTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const text = written(new Date(time.dateTime), localZone());
    time.textContent = time.classList.contains("clock") ? text.slice(11) : text;
  }
  zone.textContent = localZone() === "UTC" ? "Times in UTC: show local" : `Times in ${localZone()}: show UTC`;
}

// ---- Buttons
document.addEventListener("click", async ({ target }) => {
  const button = target.closest("button");
  if (button === zone) {
    localStorage.setItem("zone", localZone() === "UTC" ? "local" : "utc");
    showTimes(document);
  } else if (button?.dataset.copy) {
    await navigator.clipboard?.writeText(button.dataset.copy);
    if (navigator.clipboard) button.textContent = "Copied";
    else getSelection().selectAllChildren(button.previousElementSibling);
  } else if (button?.hasAttribute("commandfor") && !("command" in button)) {
    const dialog = document.getElementById(button.getAttribute("commandfor"));
    if (button.getAttribute("command") === "show-modal") dialog.showModal();
    else dialog.close();
  }
});

showTimes(document);
timer = setTimeout(poll, INTERVAL_MS);
