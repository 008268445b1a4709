// Hosts side by side: their history when the page opens, then each sample as it comes. After a lost connection the page
// reconnects by itself and asks for the history again.

import { draw } from "./chart.js";

const FIRST_DELAY = 500; // milliseconds; doubles with each failure
const LONGEST_DELAY = 15_000;
const SILENT = 10_000; // without a sample for this long, a host counts as silent
const POINTS = 300; // points of a history

const [state, count, list, empty, spans, template] = ["state", "count", "hosts", "empty", "spans", "host"].map(id =>
  document.getElementById(id),
);
const hosts = new Map();
let span = 300_000;
let clock = 0; // the server's clock minus ours
let socket;
let failures = 0;

function host(name) {
  let known = hosts.get(name);
  if (!known) {
    const card = template.content.firstElementChild.cloneNode(true);
    card.querySelector(".name").textContent = name; // never HTML
    card.dataset.host = name;
    known = { card, samples: new Map(), gone: false };
    hosts.set(name, known);
    const after = [...list.children].find(other => other.dataset.host > name);
    list.insertBefore(card, after ?? null);
  }
  return known;
}

function add({ host: name, samples }) {
  const known = host(name);
  // Samples by their time: a sample that comes twice is there once.
  for (const [at, cpu, used, total] of samples) known.samples.set(at, [at, cpu, used, total]);
  known.points = [...known.samples.values()].sort((a, b) => a[0] - b[0]);
  return known;
}

function render() {
  const now = Date.now() + clock;
  let silent = 0;
  for (const known of hosts.values()) {
    known.points = known.points.filter(([at]) => at > now - span);
    for (const at of known.samples.keys()) if (at <= now - span) known.samples.delete(at);
    const last = known.points.at(-1) ?? known.last;
    if (!last) continue;
    known.last = last;
    const quiet = now - last[0];
    const isSilent = known.gone || quiet > SILENT;
    silent += isSilent;
    known.card.classList.toggle("silent", isSilent);
    known.card.querySelector(".word").textContent = isSilent ? `silent for ${ago(quiet)}` : "";
    const [, cpu, used, total] = last;
    known.card.querySelector(".cpu .value").textContent = `${cpu.toFixed(1)} %`;
    known.card.querySelector(".memory .value").textContent = `${gib(used)} of ${gib(total)} GiB`;
    const options = { now, span, gap: Math.max(SILENT, (3 * span) / POINTS) };
    const percents = column => known.points.map(point => [point[0], column(point)]);
    draw(known.card.querySelector(".cpu canvas"), percents(p => p[1]), { ...options, color: "--cpu" });
    draw(known.card.querySelector(".memory canvas"), percents(p => (100 * p[2]) / Math.max(1, p[3])), { ...options, color: "--memory" });
  }
  empty.hidden = hosts.size > 0;
  count.textContent = hosts.size ? `${hosts.size}${silent ? `, ${silent} silent` : ""}` : "";
}

function gib(bytes) {
  return (bytes / 2 ** 30).toFixed(1);
}

function ago(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 120) return `${seconds} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

function take(message) {
  if (message.past) add(message.past);
  if (message.live) add(message.live).gone = false;
  if (message.silent && hosts.has(message.silent)) hosts.get(message.silent).gone = true;
  if (message.now) {
    clock = message.now - Date.now();
    state.textContent = "Connected";
  }
  if (message.error) state.textContent = message.error;
}

function ask() {
  if (socket.readyState === WebSocket.OPEN) socket.send(`history ${span / 1000}`);
}

function connect() {
  const url = new URL("ws", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  socket = new WebSocket(url);
  socket.onopen = () => {
    failures = 0;
    ask();
  };
  socket.onmessage = event => take(JSON.parse(event.data));
  socket.onclose = () => {
    state.textContent = "Connection lost, trying again…";
    // Half of the delay is random: pages that lose one gateway do not come back in one wave.
    const most = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** failures);
    failures += 1;
    setTimeout(connect, most / 2 + (Math.random() * most) / 2);
  };
}

spans.addEventListener("click", event => {
  const chosen = event.target.closest("button");
  if (!chosen) return;
  span = 1000 * Number(chosen.dataset.span);
  for (const button of spans.children) button.setAttribute("aria-pressed", button === chosen);
  // The charts of two spans have different points.
  for (const known of hosts.values()) [known.samples, known.points] = [new Map(), []];
  ask();
});

setInterval(render, 500);
connect();
