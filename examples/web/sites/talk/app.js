// A text goes out over the API, and comes back to all pages over the WebSocket.

const FIRST_DELAY = 500; // milliseconds; doubles with each failure
const LONGEST_DELAY = 15_000;

const part = id => document.getElementById(id);
let me = null;
let connected = false;
let failures = 0;

part("help").port = location.port;

/** Asks the API; what went wrong is shown. Null if it did. */
async function ask(method, path, body) {
  part("error").hidden = true;
  try {
    const headers = body ? { "content-type": "application/json" } : {};
    const response = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
    const isJson = response.headers.get("content-type") === "application/json";
    const answer = isJson ? await response.json() : {};
    if (response.ok) return answer;
    complain(answer.error ?? `The server answered ${response.status}.`);
  } catch {
    complain("The server cannot be reached.");
  }
  return null;
}

function complain(text) {
  part("error").textContent = text;
  part("error").hidden = false;
}

function show({ name, text }) {
  const line = document.createElement("li");
  if (name === me) line.className = "you";
  const who = document.createElement("b");
  who.textContent = name; // never HTML
  line.append(who, text);
  part("log").append(line);
  line.scrollIntoView({ block: "end" });
}

function enter(name) {
  me = name;
  part("enter").hidden = Boolean(me);
  part("form").hidden = !me;
  (me ? part("say") : part("name")).focus();
}

async function tellState() {
  if (!connected) return;
  const answer = await fetch("/api/online").then(response => response.json()).catch(() => null);
  if (answer && connected) part("state").textContent = answer.online === 1 ? "Only you are here" : `${answer.online} are here`;
}

function connect() {
  const socket = new WebSocket(new URL("/ws", location.href.replace(/^http/, "ws")));
  socket.onopen = () => {
    failures = 0;
    connected = true;
    tellState();
  };
  socket.onmessage = event => {
    show(JSON.parse(event.data));
    tellState();
  };
  socket.onclose = () => {
    connected = false;
    part("state").textContent = "Connection lost, trying again…";
    // Half of the delay is random: pages that lose one gateway do not come back in one wave.
    const most = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** failures);
    failures += 1;
    setTimeout(connect, most / 2 + (Math.random() * most) / 2);
  };
}

part("enter").addEventListener("submit", async event => {
  event.preventDefault();
  const name = part("name").value.trim();
  if (await ask("PUT", "/api/me", { name })) enter(name);
});

part("form").addEventListener("submit", async event => {
  event.preventDefault();
  const text = part("say").value.trim();
  if (text && (await ask("POST", "/api/says", { text }))) part("say").value = "";
});

part("leave").addEventListener("click", async () => {
  if (await ask("DELETE", "/api/me")) enter(null);
});

connect();
setInterval(tellState, 5000);
ask("GET", "/api/me").then(answer => enter(answer?.name ?? null));
