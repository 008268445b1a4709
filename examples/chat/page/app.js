// The chat page. Whatever comes from the server reaches the document as text (textContent), never as HTML.

import { Connection } from "./connection.js";
import {
  $, avatar, browser, byName, clock, count, el, fill, fold, onSubmit, plural, randomKey, tab, toast,
} from "./parts.js";

const MAX_TEXT = 2000; // characters, as in the server
const MAX_LOG = 500; // entries kept of each conversation
const LOBBY = "lobby";
const STATES = { connecting: "Connecting…", open: "Connected", waiting: "Reconnecting…", closed: "Disconnected" };

// Our own name, room and key. The key proves to the server that a connection which still has our name is our own old one, cut off.
const me = { name: "", room: LOBBY, key: tab.get("key") ?? randomKey() };
tab.set("key", me.key);
const isMe = name => fold(name) === fold(me.name);

let inside = false; // The server has let us in on this connection.
let people = new Map(); // Folded name to { name, room }: everyone who is online.
let late = null; // The presence events since we asked who is online: the answer may be older than they are.
const conversations = new Map(); // By id: { id, room or name, log, unread, last }
let shown = null; // The conversation on the screen
const unheard = []; // Messages that were sent, and have not come back yet.

// ---- The server ----

const connection = new Connection(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`, {
  state: onState,
  message: receive,
});

// A message is an object with one entry: the kind of the event, and its content.
function receive(message) {
  for (const [type, what] of Object.entries(message)) handlers[type]?.(what);
  render();
}

const handlers = {
  you({ name, room }) {
    const entered = !inside;
    const moved = room !== me.room;
    Object.assign(me, { name, room });
    tab.set("name", name);
    tab.set("room", room);
    browser.set("name", name);
    inside = true;
    $("rename").close();
    if (entered) {
      askWho();
      showChat();
    }
    if (moved || !shown) show(conversation({ room }));
  },
  people(list) {
    people = new Map(list.map(person => [fold(person.name), person]));
    for (const change of late ?? []) apply(change);
    late = null;
  },
  presence([was, now]) {
    const before = people.get(fold((was ?? now).name));
    apply([was, now]);
    late?.push([was, now]);
    if (was && now) renameConversation(was.name, now.name);
    if (!isMe((now ?? was).name)) announce(before, now, was);
  },
  message([from, text]) {
    add(conversation({ room: from.room }), from.name, text);
    heard(from.name, text);
  },
  private([from, to, text]) {
    const other = isMe(from.name) ? to : from;
    add(conversation({ name: other.name }), from.name, text);
    heard(from.name, text);
  },
  error(text) {
    unheard.shift();
    if (!inside) showEntry(text);
    else if ($("rename").open) $("rename-error").textContent = text;
    else toast(text);
  },
};

// A person as before and as now: null before the person came and after the person left. Applying an event twice is the same as once.
function apply([was, now]) {
  if (was) people.delete(fold(was.name));
  if (now) people.set(fold(now.name), now);
}

// Tells a change in words, in the conversations for which it is of interest. `before` is the person as we knew it.
function announce(before, now, was) {
  const { name } = was ?? now;
  const inRoom = text => notice(conversation({ room: me.room }), name, text);
  const privately = text => conversations.has(personId(name)) && notice(conversation({ name }), name, text);
  const wasHere = before?.room === me.room;
  const isHere = now?.room === me.room;
  if (!now && wasHere) inRoom("left");
  if (now && wasHere && !isHere) inRoom(`went to ${now.room}`);
  if (now && !wasHere && isHere) inRoom("joined");
  if (now && was && wasHere && isHere && now.name !== was.name) inRoom(`is now ${now.name}`);
  if (!now && before) privately("left");
  if (now && !before) privately("is here");
}

function onState(state, { until, code, reason } = {}) {
  if (state === "open") {
    if (me.name) join();
  } else if (state !== "connecting") {
    inside = false;
    late = null;
    giveBack();
  }
  const final = state === "closed";
  const why = { 4001: "You are here in another window.", 1009: "That message was too big." }[code] ?? reason;
  $("banner").hidden = state === "open" || (state === "connecting" && $("banner").hidden);
  $("banner-text").textContent = final ? `Disconnected. ${why ?? ""}` : "The connection was lost. Reconnecting by itself…";
  $("banner-button").textContent = final ? "Reconnect" : "Try now";
  $("banner-button").disabled = state === "connecting";
  $("state").textContent = $("entry-state").textContent = STATES[state];
  $("state").dataset.state = state;
  $("state").title = until ? `Next try at ${clock(new Date(until), "medium")}` : "";
  $("entry-button").disabled = state === "connecting" && Boolean(me.name);
  render();
}

function join() {
  connection.send({ join: [me.name, me.room, me.key] });
}

function askWho() {
  late = [];
  connection.probe("who");
}

// Our own message has come back: it was delivered.
function heard(from, text) {
  if (isMe(from) && unheard[0] === text) unheard.shift();
}

// Text that was sent as the connection broke goes back into the box, for the person to send again or not.
function giveBack() {
  if (unheard.length) toast("Your last message may not have arrived.");
  if (unheard.length && !$("say").value) $("say").value = unheard.join("\n");
  unheard.length = 0;
  fitBox();
}

// ---- Conversations ----

const roomId = room => `room/${room}`;
const personId = name => `person/${fold(name)}`;

function conversation({ room, name }) {
  const id = room ? roomId(room) : personId(name);
  if (!conversations.has(id)) {
    const log = el("ol", "log");
    log.hidden = true;
    log.tabIndex = 0;
    log.setAttribute("role", "log");
    log.dataset.empty = room ? "No messages yet. Say hello!" : "Only the two of you see what is written here.";
    log.setAttribute("aria-label", room ? `Messages in ${room}` : `Messages with ${name}`);
    $("logs").append(log);
    conversations.set(id, { id, room, name, log, unread: 0, last: null });
  }
  return conversations.get(id);
}

function renameConversation(name, to) {
  const found = conversations.get(personId(name));
  if (!found || conversations.has(personId(to))) return;
  conversations.delete(found.id);
  Object.assign(found, { id: personId(to), name: to });
  conversations.set(found.id, found);
}

function add(where, from, text) {
  const now = new Date();
  const own = isMe(from);
  const follows = where.last?.from === from && now - where.last.at < 120_000;
  const item = el("li", `message${own ? " own" : ""}${follows ? " follows" : ""}`);
  const bubble = el("div", "bubble");
  const head = el("p", "head");
  const time = el("time", "", clock(now, "short"));
  time.dateTime = now.toISOString();
  head.append(el("bdi", "name", own ? "You" : from), " ", time);
  const body = el("p", "text", text);
  body.dir = "auto";
  bubble.append(head, body);
  item.append(avatar(el("span"), from), bubble);
  append(where, item);
  where.last = { from, at: now };
  if (!own && (where !== shown || document.hidden)) {
    where.unread += 1;
    render();
  }
}

function notice(where, name, text) {
  const item = el("li", "notice");
  item.append(el("bdi", "name", name), ` ${text}`);
  append(where, item);
  where.last = null;
}

function append({ log }, item) {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80 || item.classList.contains("own");
  log.append(item);
  while (log.children.length > MAX_LOG) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function show(where) {
  if (shown) shown.log.hidden = true;
  shown = where;
  shown.log.hidden = false;
  shown.log.scrollTop = shown.log.scrollHeight;
  shown.unread = 0;
  closeSide();
  writeHere();
  render();
}

// The keyboard focus goes to the box, but an on-screen keyboard does not pop up unasked.
function writeHere() {
  if (!matchMedia("(pointer: coarse)").matches) $("say").focus();
}

// ---- The screen ----

function showChat() {
  $("entry").hidden = true;
  $("chat").hidden = false;
  $("entry-error").textContent = "";
  $("entry-button").disabled = false;
  writeHere();
}

function showEntry(error) {
  $("chat").hidden = true;
  $("entry").hidden = false;
  $("entry-name").value = me.name;
  $("entry-room").value = me.room;
  $("entry-error").textContent = error;
  $("entry-name").focus();
  me.name = "";
}

// A burst of events is drawn once.
let drawing = 0;
function render() {
  drawing ||= requestAnimationFrame(() => {
    drawing = 0;
    draw();
  });
}

function draw() {
  if (!shown) return;
  if (!document.hidden) shown.unread = 0;
  const all = [...people.values()];
  const inRoom = room => all.filter(person => person.room === room).length;
  const rooms = new Set([LOBBY, me.room, ...all.map(person => person.room)]);
  fill($("rooms"), [...rooms].sort(byName), room => {
    const item = entry(conversations.get(roomId(room)), () => goTo(room));
    item.append(el("span", "hash", "#"), el("bdi", "name", room), count("count", inRoom(room), "here"));
    item.setAttribute("aria-current", String(shown.room === room));
    return item;
  });

  const known = new Map(people);
  for (const { name } of conversations.values()) {
    if (name && !known.has(fold(name))) known.set(fold(name), { name });
  }
  known.delete(fold(me.name));
  const others = [...known.values()].sort((a, b) => byName(a.name, b.name));
  fill($("people"), others, ({ name, room }) => {
    const item = entry(conversations.get(personId(name)), () => show(conversation({ name })));
    const where = room === undefined ? "away" : room === me.room ? "" : `#${room}`;
    item.classList.toggle("away", room === undefined);
    item.append(avatar(el("span"), name), el("bdi", "name", name), el("span", "where", where));
    item.setAttribute("aria-current", String(shown.name !== undefined && fold(shown.name) === fold(name)));
    return item;
  });
  $("people-count").textContent = people.size;

  const online = connection.isOpen && inside;
  const there = shown.name && people.get(fold(shown.name));
  $("title").replaceChildren(el("bdi", "", shown.room ? `# ${shown.room}` : shown.name));
  $("subtitle").textContent = shown.room ? plural(inRoom(shown.room), "person", "people") + " here"
    : there ? `Private · in #${there.room}` : "Private · away";
  $("back").hidden = Boolean(shown.room);
  $("say").placeholder = shown.room ? `Message #${shown.room}` : `Message ${shown.name} privately`;
  $("say-label").textContent = $("say").placeholder;
  $("say-button").disabled = !online;
  avatar($("me-avatar"), me.name);
  $("me-name").textContent = me.name;
  const unread = [...conversations.values()].reduce((sum, { unread }) => sum + unread, 0);
  $("side-unread").textContent = unread || "";
  document.title = `${unread ? `(${unread}) ` : ""}${shown.room ? `#${shown.room}` : shown.name} · Meepo chat`;
}

function entry(where, onclick) {
  const button = el("button", "entry-button");
  button.type = "button";
  button.onclick = onclick;
  if (where?.unread) button.append(count("badge", where.unread, "unread"));
  return button;
}

// ---- What the person does ----

function goTo(room) {
  if (room !== me.room && !connection.send({ room })) return toast("Not connected.");
  if (room === me.room) show(conversation({ room }));
}

function say() {
  const text = $("say").value.trim();
  if (!text) return;
  if (!inside) return toast("Not connected: your message was not sent.");
  if ([...text].length > MAX_TEXT) return toast(`A message has at most ${MAX_TEXT} characters.`);
  connection.send(shown.room ? { say: text } : { to: [shown.name, text] });
  unheard.push(text);
  $("say").value = "";
  fitBox();
}

function fitBox() {
  const box = $("say");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
  const left = MAX_TEXT - [...box.value.trim()].length;
  $("say-count").textContent = left < 200 ? left : "";
  $("say-count").classList.toggle("over", left < 0);
}

function openSide() {
  document.body.classList.add("side-open");
  $("shade").hidden = false;
  $("main").inert = true;
  $("open-side").setAttribute("aria-expanded", "true");
  $("close-side").focus();
}

function closeSide() {
  if (!document.body.classList.contains("side-open")) return;
  document.body.classList.remove("side-open");
  $("shade").hidden = true;
  $("main").inert = false;
  $("open-side").setAttribute("aria-expanded", "false");
  $("open-side").focus();
}

onSubmit("entry-form", () => {
  const name = $("entry-name").value.trim();
  if (!name) return ($("entry-error").textContent = "Please pick a name.");
  $("entry-error").textContent = "";
  me.name = name;
  me.room = $("entry-room").value.trim().toLowerCase() || LOBBY;
  if (connection.isOpen) join();
  else connection.open();
});
onSubmit("room-form", () => {
  const room = $("room-name").value.trim().toLowerCase();
  if (room) goTo(room);
  $("room-name").value = "";
});
onSubmit("rename-form", () => {
  const sent = connection.send({ name: $("rename-name").value });
  $("rename-error").textContent = sent ? "" : "Not connected.";
});
onSubmit("say-form", say);
$("say").addEventListener("keydown", event => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  say();
});
$("say").addEventListener("input", fitBox);
$("me").addEventListener("click", () => {
  $("rename-name").value = me.name;
  $("rename-error").textContent = "";
  $("rename").showModal();
  $("rename-name").select();
});
$("rename-cancel").addEventListener("click", () => $("rename").close());
$("banner-button").addEventListener("click", () => connection.open());
$("back").addEventListener("click", () => show(conversation({ room: me.room })));
$("open-side").addEventListener("click", openSide);
$("close-side").addEventListener("click", closeSide);
$("shade").addEventListener("click", closeSide);
addEventListener("keydown", event => event.key === "Escape" && closeSide());
matchMedia("(min-width: 48rem)").addEventListener("change", closeSide);

// After a sleep, or on another network, the connection may be dead: ask.
function wake() {
  if (document.hidden) return;
  if (inside) askWho();
  else connection.hurry();
  render();
}
document.addEventListener("visibilitychange", wake);
addEventListener("online", wake);

// Where the on-screen keyboard covers the page instead of shrinking it, follow the part that is visible.
visualViewport?.addEventListener("resize", () => {
  const covered = innerHeight - visualViewport.height > 80 && visualViewport.scale === 1;
  document.body.style.height = covered ? `${visualViewport.height}px` : "";
  if (covered) scrollTo(0, 0);
  if (shown) shown.log.scrollTop = shown.log.scrollHeight;
});

$("entry-name").value = tab.get("name") ?? browser.get("name") ?? "";
$("entry-room").value = tab.get("room") ?? LOBBY;
if (tab.get("name")) Object.assign(me, { name: tab.get("name"), room: tab.get("room") ?? LOBBY }); // a reload: go on
connection.open();
