//! The rules of the chat.
//!
//! The handler keeps no state between two events: name and room live in the client's session at its gateway, and people who are to
//! be told something are in a group. So any worker on any machine can handle any event, and can be replaced at any time.

use std::collections::{BTreeMap, BTreeSet};

use meepo_worker::{Answer, Client, CloseCause, CloseReason, Handler, Hello, Message, Reject, Result};

use crate::protocol::{Ask, Event, Person};

const MAX_NAME: usize = 24;
const MAX_TEXT: usize = 2000;
/// The close code of a connection whose user is back on another one.
const REPLACED: u16 = 4001;

pub(crate) struct Chat;

impl Handler for Chat {
    async fn on_connect(&self, client: &Client, hello: &Hello) -> Result<(), Reject> {
        // A page asks its user for a name first. A telnet user comes in at once, as a guest.
        if hello.protocol() == "line" {
            let guest = || format!("guest-{}", fastrand::u16(1000..));
            while appear(client, &guest(), "lobby").await.is_err() {}
        }
        Ok(())
    }

    async fn on_message(&self, client: &Client, message: Message) -> Result<()> {
        let done = carry_out(client, &message).await;
        done.unwrap_or_else(|complaint| reply(client, &Event::Error(complaint)));
        Ok(())
    }

    async fn on_close(&self, client: &Client, reason: &CloseReason) {
        let replaced = reason.cause == CloseCause::Kicked && reason.code == Some(REPLACED);
        if let Some(me) = who_is(&client.session()).filter(|_| !replaced) {
            tell(client, "everyone", &Event::Presence(Some(me), None));
        }
    }
}

async fn carry_out(client: &Client, message: &Message) -> Result<(), String> {
    let text = message.text().ok_or("Only text is understood")?;
    let ask = match client.hello().protocol() {
        "line" => Ask::from_line(text),
        _ => serde_json::from_str(text).map_err(|error| format!("Not understood: {error}")),
    };
    match (ask?, who_is(&client.session())) {
        (Ask::Join(name, room, key), _) => {
            client.set("key", key);
            appear(client, &name, &room).await?;
        }
        (_, None) => return Err("Say who you are first: join".into()),
        (Ask::Name(name), Some(me)) => appear(client, &name, &me.room).await?,
        (Ask::Room(room), Some(me)) => appear(client, &me.name, &room).await?,
        (Ask::Say(text), Some(me)) => {
            let text = checked("A message", &text, MAX_TEXT)?;
            tell(client, &format!("room/{}", me.room), &Event::Message(me, text));
        }
        (Ask::To(name, text), Some(me)) => {
            let text = checked("A message", &text, MAX_TEXT)?;
            let place = named(&name);
            let mut found = people(client, &place).await.into_iter();
            let to = found.find(|to| named(&to.name) == place);
            let to = to.ok_or(format!("Nobody here is called {name}"))?;
            let event = Event::Private(me, to, text);
            tell(client, &place, &event);
            reply(client, &event);
        }
        (Ask::Who, _) => reply(client, &Event::People(people(client, "everyone").await)),
        (Ask::Rooms, _) => {
            let groups = known(client, client.cluster().group_sizes().await).into_iter();
            let rooms = groups.filter_map(|(group, people)| Some((group.strip_prefix("room/")?.into(), people)));
            reply(client, &Event::Rooms(rooms.collect()));
        }
    }
    Ok(())
}

/// Makes the person known by this name, in this room: when the person comes, takes another name or goes to another room.
async fn appear(client: &Client, name: &str, room: &str) -> Result<(), String> {
    let name = checked("A name", name, MAX_NAME)?;
    let room = checked("A room", room, MAX_NAME)?.to_lowercase();
    let (was, now) = (who_is(&client.session()), Person { name, room });
    let old = was.iter().flat_map(|was| groups(client, was)).collect::<BTreeSet<_>>();
    let new = groups(client, &now);
    if !old.contains(&named(&now.name)) {
        take_name(client, &now.name).await?;
    }
    old.difference(&new).for_each(|group| client.leave(group));
    new.iter().for_each(|group| client.join(group));
    client.set("name", &now.name);
    client.set("room", &now.room);
    reply(client, &Event::You(now.clone()));
    tell(client, "everyone", &Event::Presence(was, Some(now)));
    Ok(())
}

/// Claims the name first, and looks after that for others who have claimed it. So of two people who want a name in the same instant, one gets
/// it, or neither does and both are told so. The claim is no lock: a gateway that does not reply now may have a namesake.
async fn take_name(client: &Client, name: &str) -> Result<(), String> {
    let (cluster, claim) = (client.cluster(), named(name));
    client.join(&claim);
    let holders = cluster.members(&claim).await.value;
    for other in holders.iter().filter(|other| other.id != client.id()) {
        let keys = [client.get("key"), other.session.get("key").cloned()];
        if keys[0].is_none() || keys[0] != keys[1] {
            client.leave(&claim);
            return Err(format!("The name {name} is taken"));
        }
        cluster.client(other.id).close(REPLACED, "you are back");
    }
    Ok(())
}

/// The groups of a person: the places where others find the person, and the same places by client protocol, where the person is told things.
/// A message to a group is the same for all its members, but a page and a telnet user need it in different words.
fn groups(client: &Client, person: &Person) -> BTreeSet<String> {
    let protocol = client.hello().protocol();
    let places = ["everyone".into(), format!("room/{}", person.room), named(&person.name)];
    let told = places.clone().map(|place| format!("{protocol}:{place}"));
    places.into_iter().chain(told).collect()
}

fn named(name: &str) -> String {
    format!("name/{}", name.trim().to_lowercase())
}

async fn people(client: &Client, place: &str) -> Vec<Person> {
    let members = known(client, client.cluster().members(place).await);
    members.iter().filter_map(|member| who_is(&member.session)).collect()
}

/// The value of an answer. The client is told if some gateways did not reply.
fn known<T>(client: &Client, answer: Answer<T>) -> T {
    if !answer.is_complete() {
        reply(client, &Event::Error("Some gateways do not answer".into()));
    }
    answer.value
}

fn who_is(session: &BTreeMap<String, String>) -> Option<Person> {
    let [name, room] = ["name", "room"].map(|key| session.get(key).cloned());
    name.zip(room).map(|(name, room)| Person { name, room })
}

/// Tells all people in a place. A page is told what its own user did, too; a telnet user has seen the own line.
fn tell(client: &Client, place: &str, event: &Event) {
    let group = |protocol| client.cluster().group(format!("{protocol}:{place}"));
    group("ws").send(event.json());
    group("line").except(client.id()).send(event.line());
}

fn reply(client: &Client, event: &Event) {
    let line = client.hello().protocol() == "line";
    client.send(if line { event.line() } else { event.json() });
}

/// Trims a text and checks its length. A message may have several lines; a name has one.
fn checked(what: &str, text: &str, limit: usize) -> Result<String, String> {
    let (text, complaint) = (text.trim(), format!("{what} has 1 to {limit} characters"));
    let fits = (1..=limit).contains(&text.chars().count());
    let plain = limit > MAX_NAME || !text.contains(char::is_control);
    if fits && plain { Ok(text.into()) } else { Err(complaint) }
}
