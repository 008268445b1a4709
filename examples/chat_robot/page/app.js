// One WebSocket is one conversation. The page reconnects by itself; on a new connection the robot does not know the old conversation.

const FIRST_DELAY = 500; // milliseconds; doubles with each failure
const LONGEST_DELAY = 15_000;

const [state, log, form, say, send] = ["state", "log", "form", "say", "send"].map(id => document.getElementById(id));
let socket;
let failures = 0;

function show(who, text) {
  const line = document.createElement("li");
  line.className = who;
  line.textContent = text; // never HTML
  log.append(line);
  line.scrollIntoView({ block: "end" });
}

function connect() {
  const url = new URL("ws", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  socket = new WebSocket(url);
  socket.onopen = () => {
    failures = 0;
    state.textContent = "Connected";
    send.disabled = false;
  };
  socket.onmessage = event => show("robot", event.data);
  socket.onclose = () => {
    send.disabled = true;
    state.textContent = "Connection lost, trying again…";
    // Half of the delay is random: pages that lose one gateway do not come back in one wave.
    const most = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** failures);
    failures += 1;
    setTimeout(connect, most / 2 + (Math.random() * most) / 2);
  };
}

form.addEventListener("submit", event => {
  event.preventDefault();
  const text = say.value.trim();
  if (!text || socket.readyState !== WebSocket.OPEN) return;
  socket.send(text);
  show("you", text);
  say.value = "";
});

connect();
