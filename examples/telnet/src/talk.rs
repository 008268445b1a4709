//! The rules of the talk.
//!
//! Nick and groups live in the client's session at its gateway, so any worker can handle any line. A client is bound to
//! its nick in small letters as its uid.

use meepo_worker::{Answer, Client, CloseReason, Handler, Hello, LastWords, Member, Message, Reject, Result};

use crate::ask::{Ask, HELP};

const MAX_NAME: usize = 16;
const MAX_TEXT: usize = 1000;
const MAX_GROUPS: usize = 10;

pub(crate) struct Talk;

impl Handler for Talk {
    async fn on_connect(&self, client: &Client, _hello: &Hello) -> Result<(), Reject> {
        // A worker that died in the middle of this handler may have given the client a nick already.
        while client.get("nick").is_none() {
            let guest = format!("guest-{}", fastrand::u16(1000..));
            // Another guest can have drawn the same nick.
            let _ = take_nick(client, &guest).await;
        }
        let nick = nick(client);
        client.send(format!("* You are {nick}. {HELP}"));
        others(client, format!("* {nick} joined"));
        // It cannot fail: a new client is in no group yet.
        let _ = join(client, "lobby");
        Ok(())
    }

    async fn on_message(&self, client: &Client, message: Message) -> Result<()> {
        let text = message.text().ok_or("only text is understood")?;
        // No person can send line ends or control sequences to the terminal of another.
        let line = text.replace(char::is_control, " ");
        if let Err(complaint) = carry_out(client, &line).await {
            client.send(format!("* {complaint}"));
        }
        Ok(())
    }

    async fn on_last_words(&self, client: &Client, why: LastWords) {
        client.send(match why {
            LastWords::Stop => "* The service is stopping, goodbye",
            LastWords::Reload => "* The service is renewed: come back in a moment",
        });
    }

    async fn on_close(&self, client: &Client, _reason: &CloseReason) {
        others(client, format!("* {} left", nick(client)));
    }
}

async fn carry_out(client: &Client, line: &str) -> Result<(), String> {
    match Ask::of(line).ok_or(HELP)? {
        Ask::Nick(name) => {
            let was = nick(client);
            take_nick(client, name).await?;
            client.send(format!("* You are {name}"));
            others(client, format!("* {was} is now {name}"));
        }
        Ask::Join(group) => join(client, group)?,
        Ask::Leave(group) => leave(client, group)?,
        Ask::Who(group) => {
            let select = client.cluster().select().with_session();
            let select = match group {
                Some(group) => select.group(in_group(group)),
                None => select,
            };
            let members = known(client, select.list().await);
            let mut nicks: Vec<_> = members.iter().filter_map(nick_of).collect();
            nicks.sort_unstable();
            client.send(format!("* {} here: {}", nicks.len(), nicks.join(", ")));
        }
        Ask::Tell(to, text) => {
            let text = said(text)?;
            let uid = to.to_lowercase();
            if !known(client, client.cluster().is_uid_online(&uid).await) {
                return Err(format!("Nobody here is called {to}"));
            }
            let from = nick(client);
            client.cluster().uid(uid).send(format!("{from} to you: {text}"));
        }
        Ask::Say(text) => {
            let text = said(text)?;
            let groups = groups(client);
            let group = groups.last().ok_or("You are in no group: /join GROUP")?;
            let line = format!("[{group}] {}: {text}", nick(client));
            // The speaker has seen the own line.
            client.cluster().group(in_group(group)).except(client.id()).send(line);
        }
        Ask::Quit => client.close(1000, "goodbye"),
    }
    Ok(())
}

/// Claims the nick first, and looks after that for others who have claimed it. So of two people who want a nick in the same instant, one gets it, or
/// neither does.
async fn take_nick(client: &Client, name: &str) -> Result<(), String> {
    checked("A nick", name)?;
    let (uid, was) = (name.to_lowercase(), client.get("nick").map(|nick| nick.to_lowercase()));
    let claim = |uid: &str| format!("nick/{uid}");
    if was.as_ref() != Some(&uid) {
        client.join(claim(&uid));
        let holders = client.cluster().select().group(claim(&uid)).count().await;
        if holders.value > 1 {
            client.leave(claim(&uid));
            return Err(format!("The nick {name} is taken"));
        }
        if let Some(was) = was {
            client.leave(claim(&was));
        }
    }
    client.bind(uid);
    client.set("nick", name);
    Ok(())
}

fn join(client: &Client, group: &str) -> Result<(), String> {
    checked("A group", group)?;
    let group = group.to_lowercase();
    let mut groups = groups(client);
    let new = !groups.contains(&group);
    if new && groups.len() == MAX_GROUPS {
        return Err(format!("You are in {MAX_GROUPS} groups: /leave one first"));
    }
    if new {
        client.join(in_group(&group));
        let line = format!("* {} joined {group}", nick(client));
        client.cluster().group(in_group(&group)).except(client.id()).send(line);
    }
    groups.retain(|other| *other != group);
    groups.push(group);
    talks_in(client, &groups);
    Ok(())
}

fn leave(client: &Client, group: &str) -> Result<(), String> {
    let group = group.to_lowercase();
    let mut groups = groups(client);
    let before = groups.len();
    groups.retain(|other| *other != group);
    if groups.len() == before {
        return Err(format!("You are not in {group}"));
    }
    client.leave(in_group(&group));
    let line = format!("* {} left {group}", nick(client));
    client.cluster().group(in_group(&group)).send(line);
    talks_in(client, &groups);
    Ok(())
}

/// Keeps the groups in the order of joining, and tells the client which group gets its next line.
fn talks_in(client: &Client, groups: &[String]) {
    client.set("groups", groups.join(" "));
    client.send(match groups.last() {
        Some(group) => format!("* You talk in {group}"),
        None => "* You are in no group".into(),
    });
}

fn groups(client: &Client) -> Vec<String> {
    let groups = client.get("groups").unwrap_or_default();
    groups.split_whitespace().map(Into::into).collect()
}

fn nick(client: &Client) -> String {
    client.get("nick").unwrap_or_default()
}

fn nick_of(member: &Member) -> Option<&str> {
    member.session.get("nick").map(String::as_str)
}

/// The name of a group of people, kept apart from the groups that are claims of nicks.
fn in_group(group: &str) -> String {
    format!("group/{}", group.to_lowercase())
}

fn others(client: &Client, line: String) {
    client.cluster().all().except(client.id()).send(line);
}

/// The value of an answer. The client is told if some gateways did not reply.
fn known<T>(client: &Client, answer: Answer<T>) -> T {
    if !answer.is_complete() {
        client.send("* Some gateways do not answer");
    }
    answer.value
}

fn checked(what: &str, name: &str) -> Result<(), String> {
    let plain = name.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'));
    let fits = plain && (1..=MAX_NAME).contains(&name.chars().count());
    fits.then_some(())
        .ok_or(format!("{what} has 1 to {MAX_NAME} letters, digits, - and _"))
}

fn said(text: &str) -> Result<&str, String> {
    let fits = (1..=MAX_TEXT).contains(&text.chars().count());
    fits.then_some(text)
        .ok_or(format!("A message has 1 to {MAX_TEXT} characters"))
}
