"""The chat of examples/chat in Python: the same groups, sessions and messages, so both can serve one room together.

This program keeps nothing between two events. A client's name and room are in its session, which the gateway keeps; what
several clients are told goes to a group.
"""

import json
import random
import unicodedata

import meepo

MAX_NAME, MAX_TEXT = 24, 2000
REPLACED = 4001  # the close code of a client whose user is back with another client
HELP = "There are /name NAME, /join ROOM, /rooms, /who, /to NAME TEXT and /help"
# The commands, and how many texts each has.
COMMANDS = {"join": 3, "name": 1, "room": 1, "say": 1, "to": 2, "who": 0, "rooms": 0}


class Complaint(Exception):
    """A mistake of the user: the client is told of it, and it is not logged."""


class Chat(meepo.App):
    async def on_connect(self, client, hello):
        # A page asks its user for a name first. A telnet user joins at once, as a guest.
        while hello.protocol == "line" and not who_is(client.session):
            try:
                await appear(client, f"guest-{random.randint(1000, 65535)}", "lobby")
            except Complaint:
                pass

    async def on_message(self, client, message):
        try:
            await carry_out(client, message.data)
        except Complaint as complaint:
            reply(client, "error", str(complaint))

    async def on_close(self, client, reason):
        replaced = reason.cause == "KICKED" and reason.code == REPLACED
        me = who_is(client.session)
        if me and not replaced:
            tell(client, "everyone", "presence", me, None)


async def carry_out(client, text):
    if not isinstance(text, str):
        raise Complaint("Only text is understood")
    command, *texts = from_line(text) if client.hello.protocol == "line" else from_json(text)
    me = who_is(client.session)
    if command == "join":
        name, room, key = texts
        client.set("key", key)
        await appear(client, name, room)
    elif me is None:
        raise Complaint("Say who you are first: join")
    elif command == "name":
        await appear(client, texts[0], me["room"])
    elif command == "room":
        await appear(client, me["name"], texts[0])
    elif command == "say":
        tell(client, f"room/{me['room']}", "message", me, checked("A message", texts[0], MAX_TEXT))
    elif command == "to":
        name, text = texts[0], checked("A message", texts[1], MAX_TEXT)
        found = [one for one in await people(client, named(name)) if named(one["name"]) == named(name)]
        if not found:
            raise Complaint(f"Nobody here is called {name}")
        tell(client, named(name), "private", me, found[0], text)
        reply(client, "private", me, found[0], text)
    elif command == "who":
        reply(client, "people", await people(client, "everyone"))
    else:
        groups = known(client, await client.cluster.group_sizes())
        rooms = {group[len("room/") :]: size for group, size in sorted(groups.items()) if group.startswith("room/")}
        reply(client, "rooms", rooms)


async def appear(client, name, room):
    """Gives the client a name and a room: when it joins, takes another name or goes to another room."""
    name, room = checked("A name", name, MAX_NAME), checked("A room", room, MAX_NAME).lower()
    was, now = who_is(client.session), {"name": name, "room": room}
    old, new = groups(client, was) if was else set(), groups(client, now)
    if named(name) not in old:
        await take_name(client, name)
    for group in old - new:
        client.leave(group)
    for group in new:
        client.join(group)
    client.set("name", name)
    client.set("room", room)
    reply(client, "you", now)
    tell(client, "everyone", "presence", was, now)


async def take_name(client, name):
    """Joins the group of a name, then looks for other clients in it. It is no lock: see examples/chat."""
    claim = named(name)
    client.join(claim)
    holders = (await client.cluster.members(claim)).value
    for id, session in holders.items():
        if id == client.id:
            continue
        if client.get("key") is None or client.get("key") != session.get("key"):
            client.leave(claim)
            raise Complaint(f"The name {name} is taken")
        client.cluster.client(id).close(REPLACED, "you are back")


def groups(client, person):
    """The groups in which a person is found, and for each one by protocol, to which messages are sent."""
    places = ["everyone", f"room/{person['room']}", named(person["name"])]
    return {*places, *(f"{client.hello.protocol}:{place}" for place in places)}


def named(name):
    return f"name/{name.strip().lower()}"


async def people(client, place):
    members = known(client, await client.cluster.members(place))
    return [who for who in map(who_is, members.values()) if who]


def known(client, answer):
    if not answer.complete:
        reply(client, "error", "Some gateways do not answer")
    return answer.value


def who_is(session):
    if "name" in session and "room" in session:
        return {"name": session["name"], "room": session["room"]}
    return None


def tell(client, place, event, *values):
    """Sends an event to a place. A page is sent what its own user did, too; a telnet user has seen the typed line."""
    client.cluster.group(f"ws:{place}").send(as_json(event, *values))
    client.cluster.group(f"line:{place}").excluding(client.id).send(as_line(event, *values))


def reply(client, event, *values):
    client.send(as_line(event, *values) if client.hello.protocol == "line" else as_json(event, *values))


def checked(subject, text, limit):
    """The text without spaces at its ends. A message may have several lines, a name has one."""
    text = text.strip()
    if not 1 <= len(text) <= limit or limit <= MAX_NAME and any(map(is_control, text)):
        raise Complaint(f"{subject} has 1 to {limit} characters")
    return text


def is_control(char):
    return unicodedata.category(char) == "Cc"


def from_json(text):
    try:
        command = json.loads(text)
        # A text that JSON can express and UTF-8 cannot, such as half a surrogate pair, is an error too.
        json.dumps(command, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise Complaint(f"Not understood: {error}") from None
    if isinstance(command, str):
        command = {command: []}
    if isinstance(command, dict) and len(command) == 1:
        [(name, texts)] = command.items()
        texts = texts if isinstance(texts, list) else [texts]
        if COMMANDS.get(name) == len(texts) and all(isinstance(one, str) for one in texts):
            return name, *texts
    raise Complaint("Not understood: there are " + ", ".join(COMMANDS))


def from_line(line):
    command, _, rest = line.partition(" ")
    if command in ("/name", "/join"):
        return {"/name": "name", "/join": "room"}[command], rest
    if command == "/to":
        # A name with spaces stands in quotes.
        quoted = rest.startswith('"') and '"' in rest[1:]
        name, space, text = rest[1:].partition('"') if quoted else rest.partition(" ")
        if space:
            return "to", name, text
    if command in ("/who", "/rooms"):
        return (command[1:],)
    if not line.startswith("/"):
        return "say", line
    raise Complaint(HELP)


def as_json(event, *values):
    return json.dumps({event: values[0] if len(values) == 1 else values}, ensure_ascii=False)


def as_line(event, *values):
    if event == "you":
        line = f"* You are {values[0]['name']} in {values[0]['room']}. Try /help"
    elif event == "presence":
        was, now = values
        if now is None:
            line = f"* {was['name'] if was else 'Somebody'} left"
        elif was is None:
            line = f"* {now['name']} joined {now['room']}"
        elif was["name"] == now["name"]:
            line = f"* {now['name']} went to {now['room']}"
        else:
            line = f"* {was['name']} is now {now['name']}"
    elif event == "message":
        line = f"{values[0]['name']}: {values[1]}"
    elif event == "private":
        line = f"{values[0]['name']} to {values[1]['name']}, privately: {values[2]}"
    elif event == "people":
        line = "* " + ", ".join(f"{who['name']} in {who['room']}" for who in values[0])
    elif event == "rooms":
        line = "* " + ", ".join(f"{room} ({size})" for room, size in values[0].items())
    else:
        line = f"* {values[0]}"
    # One event is one line, and no user can send control sequences to the terminal of another.
    return "".join(" " if is_control(char) else char for char in line)


if __name__ == "__main__":
    meepo.run(Chat())
