// Shows lines as they come. After a lost connection the page reconnects by itself, with its filter.

const FIRST_DELAY = 500; // milliseconds; doubles with each failure
const LONGEST_DELAY = 15_000;
const MOST_LINES = 1000; // older lines are removed

const [state, log, form, filter] = ["state", "log", "form", "filter"].map(id => document.getElementById(id));
let socket;
let failures = 0;

function show({ machine, file, lines }) {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  for (const text of lines) {
    const item = document.createElement("li");
    const from = document.createElement("b");
    from.textContent = `${machine} ${file}`; // never HTML
    item.append(from, " ", text);
    log.append(item);
  }
  while (log.childElementCount > MOST_LINES) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight; // a reader who has scrolled up is not disturbed
}

function connect() {
  const url = new URL("ws", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  socket = new WebSocket(url);
  socket.onopen = () => {
    failures = 0;
    ask();
  };
  socket.onmessage = event => {
    const message = JSON.parse(event.data);
    if (message.lines) show(message);
    else state.textContent = message.error ?? `Connected, filter: ${message.filter}`;
  };
  socket.onclose = () => {
    state.textContent = "Connection lost, trying again…";
    // Half of the delay is random: pages that lose one gateway do not come back in one wave.
    const most = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** failures);
    failures += 1;
    setTimeout(connect, most / 2 + (Math.random() * most) / 2);
  };
}

function ask() {
  if (socket.readyState === WebSocket.OPEN) socket.send(filter.value.trim() || "*");
}

form.addEventListener("submit", event => {
  event.preventDefault();
  log.replaceChildren();
  ask();
});

connect();
