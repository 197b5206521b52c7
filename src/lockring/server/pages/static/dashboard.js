// Keeps the page up to date: by a stream of events, or by loading the page again where no stream gets through.
// It changes only what has changed, so that focus, selection and scroll position stay. Without it, the page is as loaded.

const POLL_MS = 5000; // between two loads without a stream
const SILENT_MS = 40000; // a stream says something at least every 15 s

const content = document.getElementById("content");
const live = document.getElementById("live");
const liveText = document.getElementById("live-text");
const pause = document.getElementById("pause");
const stream = document.body.dataset.stream;

let source = null;
let timer = 0;
let heardAt = 0;
let isPaused = false;
let latest = null;
let failures = 0; // of streams, since one has brought something

function say(state, text) {
  live.className = `live ${state}`;
  if (liveText.textContent !== text) liveText.textContent = text;
}

// ---------------------------------------------------------------- changing the page in place

function keyOf(node) {
  return node.nodeType === Node.ELEMENT_NODE ? node.id : "";
}

function isAlike(one, other) {
  return one.nodeType === other.nodeType && one.nodeName === other.nodeName && keyOf(one) === keyOf(other);
}

function morph(present, wanted) {
  if (present.nodeType !== Node.ELEMENT_NODE) {
    if (present.nodeValue !== wanted.nodeValue) present.nodeValue = wanted.nodeValue;
    return;
  }
  if (present.isEqualNode(wanted)) return;
  for (const { name } of [...present.attributes]) {
    if (!wanted.hasAttribute(name)) present.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) {
    if (present.getAttribute(name) !== value) present.setAttribute(name, value);
  }
  // A form that is being filled in stays as it is.
  if (present.nodeName === "FORM") return;
  morphChildren(present, wanted);
}

function morphChildren(present, wanted) {
  const byKey = new Map();
  for (const child of present.children) if (child.id) byKey.set(child.id, child);
  let at = present.firstChild;
  for (const child of [...wanted.childNodes]) {
    const key = keyOf(child);
    let match = key ? byKey.get(key) : at;
    if (match && !isAlike(match, child)) match = null;
    if (match && !key && keyOf(match)) match = null;
    if (!match) {
      present.insertBefore(child.cloneNode(true), at);
      continue;
    }
    if (match === at) at = at.nextSibling;
    else present.insertBefore(match, at);
    morph(match, child);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function show(html) {
  const wanted = document.createElement("div");
  wanted.append(new DOMParser().parseFromString(html, "text/html").body);
  morphChildren(content, wanted.firstChild);
  choose(chosen);
}

// ---------------------------------------------------------------- following

function arrived(html) {
  heardAt = Date.now();
  latest = html;
  if (isPaused) return;
  show(html);
  say("on", "Live");
}

function follow() {
  stop();
  source = new EventSource(stream);
  heardAt = Date.now();
  source.addEventListener("content", (event) => {
    failures = 0;
    arrived(JSON.parse(event.data));
  });
  source.addEventListener("problem", (event) => {
    heardAt = Date.now();
    if (!isPaused) say("off", `As it was: ${JSON.parse(event.data)}`);
  });
  source.addEventListener("over", () => location.reload());
  source.onopen = () => { heardAt = Date.now(); };
  source.onerror = () => {
    failures += 1;
    if (source.readyState === EventSource.CLOSED || failures > 1) poll();
    else if (!isPaused) say("off", "Trying again");
  };
}

function stop() {
  if (source) source.close();
  source = null;
  clearTimeout(timer);
}

async function poll() {
  stop();
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
    if (answer.status === 401) { location.reload(); return; }
    const page = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("content");
    if (!answer.ok || !page) throw new Error("no answer for now");
    arrived(page.innerHTML);
    // A stream may get through again.
    later(follow);
  } catch {
    if (!isPaused) say("off", "Trying again");
    later(poll);
  }
}

function later(step) {
  // While the answer came, the page may have been hidden, or shown again and followed by a new stream.
  if (!source && !document.hidden) timer = setTimeout(step, POLL_MS);
}

function watchOver() {
  if (source && Date.now() - heardAt > SILENT_MS) poll();
}

// ---------------------------------------------------------------- one member on the ring

let chosen = "";

function choose(node) {
  chosen = node;
  const ring = document.getElementById("ring");
  if (!ring) return;
  ring.classList.toggle("chosen", Boolean(node));
  for (const arc of ring.querySelectorAll(".arc")) arc.classList.toggle("match", arc.dataset.node === node);
}

document.addEventListener("pointerover", (event) => {
  const near = event.target instanceof Element ? event.target.closest("[data-node]") : null;
  const node = near ? near.dataset.node : "";
  if (node !== chosen) choose(node);
});

// ----------------------------------------------------------------

if (stream) {
  pause.hidden = false;
  pause.addEventListener("click", () => {
    isPaused = !isPaused;
    pause.textContent = isPaused ? "Go on" : "Pause";
    if (isPaused) say("", "Paused");
    else if (latest !== null) arrived(latest);
    else say("", "As of when it was loaded");
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) stop();
    else follow();
  });
  addEventListener("pagehide", stop);
  addEventListener("pageshow", (event) => { if (event.persisted) follow(); });
  follow();
  setInterval(watchOver, POLL_MS);
}
