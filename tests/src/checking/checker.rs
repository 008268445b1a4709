//! Holds what clients sent and got against what handlers saw: lost, duplicated, reordered, stray.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::events::Record;
use crate::clients::load::Life;

/// What a run came to, and what was wrong with it.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Connections.
    pub lives: usize,
    /// Connections that a gateway ended or lost.
    pub lost_lives: usize,
    /// Messages that clients sent.
    pub sent: u64,
    /// Messages that handlers saw, repetitions included.
    pub seen: u64,
    /// Events that handlers saw marked as redelivered.
    pub marked: u64,
    /// Each broken promise, in words.
    pub wrong: Vec<String>,
}

/// What handlers saw of one connection, by the number of the message; 0 is the connect, [`CLOSE`] the close.
type Seen = Vec<(u64, bool)>;

const CLOSE: u64 = u64::MAX;

/// Checks a run. `records` are in the order in which the handlers wrote them.
pub fn check(lives: &BTreeMap<String, Life>, records: &[Record]) -> Verdict {
    let mut verdict = Verdict {
        lives: lives.len(),
        ..Verdict::default()
    };
    let mut tokens = HashMap::new();
    let mut seen: BTreeMap<&str, Seen> = BTreeMap::new();
    for record in records {
        let number = match record.event.as_str() {
            "connect" => {
                tokens.insert(record.client.as_str(), record.query.as_str());
                Some(0)
            }
            "message" => number(&record.text),
            "close" => Some(CLOSE),
            _ => continue,
        };
        let Some(&token) = tokens.get(record.client.as_str()) else {
            verdict
                .wrong
                .push(format!("{record:?}: before the connect of its client"));
            continue;
        };
        if !lives.contains_key(token) {
            // Not of the load, or a connection that did not come about.
            continue;
        }
        let Some(number) = number.filter(|_| record.event != "message" || stem(&record.text) == token) else {
            verdict
                .wrong
                .push(format!("{record:?}: the client {token} did not send that"));
            continue;
        };
        verdict.marked += u64::from(record.redelivered);
        verdict.seen += u64::from(record.event == "message");
        seen.entry(token).or_default().push((number, record.redelivered));
    }
    for (token, life) in lives {
        verdict.sent += life.sent;
        verdict.lost_lives += usize::from(life.lost.is_some());
        let none = Seen::new();
        check_life(life, seen.get(token.as_str()).unwrap_or(&none), &mut verdict.wrong);
    }
    verdict
}

fn check_life(life: &Life, seen: &Seen, wrong: &mut Vec<String>) {
    let token = &life.token;
    let mut unmarked = BTreeSet::new();
    let (mut known, mut again) = (BTreeSet::new(), BTreeSet::new());
    // The event that a worker had begun, and not written down yet, when it was frozen: others have finished it since.
    let mut overslept = 0;
    for &(number, redelivered) in seen {
        let name = name(number);
        if !redelivered && !unmarked.insert(number) {
            wrong.push(format!("{token}: {name} twice without the mark"));
        }
        let before = match number {
            0 => true,
            // With no message lost on the way, all were before it.
            CLOSE => life.lost.is_some() || life.sent == 0 || known.contains(&life.sent),
            number => known.contains(&(number - 1)),
        };
        if !before {
            wrong.push(format!("{token}: {name} came too early"));
        }
        if !redelivered && number != CLOSE && known.contains(&CLOSE) {
            overslept += 1;
            if overslept > 1 || !again.contains(&number) {
                wrong.push(format!("{token}: {name} after the close"));
            }
        }
        known.insert(number);
        if redelivered {
            again.insert(number);
        }
    }
    // What a gateway that died had not passed on is gone; what came back was surely handled.
    let answered = life.got.iter().filter_map(|text| number(text)).max().unwrap_or(0);
    let due = if life.lost.is_some() { answered } else { life.sent };
    let missing: Vec<_> = (0..=due).filter(|number| !known.contains(number)).collect();
    if !missing.is_empty() {
        wrong.push(format!("{token}: never handled: {missing:?} of {due}"));
    }
    if !known.contains(&CLOSE) {
        wrong.push(format!("{token}: no close, lost with {:?}", life.lost));
    }
    check_answers(life, seen, due, wrong);
}

fn check_answers(life: &Life, seen: &Seen, due: u64, wrong: &mut Vec<String>) {
    let token = &life.token;
    let marked: BTreeSet<_> = seen
        .iter()
        .filter(|(_, redelivered)| *redelivered)
        .map(|(number, _)| *number)
        .collect();
    let mut last = 0;
    for text in &life.got {
        match number(text).filter(|_| stem(text) == token) {
            None => wrong.push(format!("{token}: got a stranger's message {text:?}")),
            Some(number) if number == last + 1 => last = number,
            Some(number) if number <= last && marked.contains(&number) => {}
            Some(number) if number <= last => {
                wrong.push(format!("{token}: the answer {number} twice without the mark"))
            }
            Some(number) => {
                wrong.push(format!("{token}: the answer {number} after {last}"));
                last = number;
            }
        }
    }
    if last < due {
        wrong.push(format!("{token}: answered up to {last} of {due}"));
    }
}

impl Verdict {
    /// Nothing was lost, reordered or repeated without the mark.
    ///
    /// # Panics
    ///
    /// When something was.
    #[track_caller]
    pub fn fine(&self) {
        let shown = &self.wrong[..self.wrong.len().min(20)];
        assert!(shown.is_empty(), "{} wrong, among them {shown:#?}", self.wrong.len());
        assert!(self.sent > 0 && self.lives > 0, "there was a load: {self:?}");
    }

    /// The same, and no client lost its connection.
    ///
    /// # Panics
    ///
    /// When it is not so.
    #[track_caller]
    pub fn unnoticed(&self) {
        self.fine();
        assert_eq!(self.lost_lives, 0, "no client noticed");
    }
}

fn stem(text: &str) -> &str {
    text.rsplit_once(':').map_or("", |(stem, _)| stem)
}

fn number(text: &str) -> Option<u64> {
    text.rsplit_once(':')?.1.parse().ok()
}

fn name(number: u64) -> String {
    match number {
        0 => "the connect".into(),
        CLOSE => "the close".into(),
        number => format!("message {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(sent: u64, lost: Option<u16>) -> Life {
        let mut life = Life::new("c");
        life.sent = sent;
        life.got = (1..=sent).map(|number| format!("c:{number}")).collect();
        life.lost = lost;
        life
    }

    /// What is wrong with these events of the client `c`: `+` is its connect, `-` its close, and `!` marks.
    fn wrong(life: Life, events: &[&str]) -> Vec<String> {
        let records: Vec<_> = events
            .iter()
            .map(|event| {
                let redelivered = event.ends_with('!');
                let event = event.trim_end_matches('!');
                let (kind, query, text) = match event {
                    "+" => ("connect", "c", String::new()),
                    "-" => ("close", "", String::new()),
                    number => ("message", "", format!("c:{number}")),
                };
                Record {
                    event: kind.into(),
                    client: "id".into(),
                    query: query.into(),
                    text,
                    redelivered,
                    ..Record::default()
                }
            })
            .collect();
        check(&BTreeMap::from([("c".into(), life)]), &records).wrong
    }

    #[test]
    fn what_is_right_is_taken() {
        for events in [
            &["+", "1", "2", "3", "-"][..],
            &["+", "+!", "1", "2", "2!", "3!", "-"],
            &["+", "1", "2!", "3!", "3", "-", "-!"],
            &["+", "1", "2!", "3!", "-", "2"],
            &["+", "1", "2", "3", "-!", "-"],
        ] {
            assert_eq!(wrong(life(3, None), events), [""; 0], "{events:?}");
        }
        assert_eq!(wrong(life(1, Some(1006)), &["+", "1", "-"]), [""; 0]);
    }

    #[test]
    fn each_kind_of_fault_is_found() {
        for (events, text) in [
            (&["+", "1", "3", "2", "-"][..], "too early"),
            (&["+", "1", "2", "2", "3", "-"], "twice without the mark"),
            (&["+", "1", "2", "-"], "never handled: [3]"),
            (&["+", "1", "2", "3"], "no close"),
            (&["+", "1", "2", "3", "-", "-"], "the close twice"),
            (&["+", "1", "2", "-", "3"], "after the close"),
            (&["+", "1", "2!", "3!", "-", "2", "3"], "message 3 after the close"),
            (&["+", "1", "2!", "3!", "-", "1"], "message 1 twice without the mark"),
            (&["+", "+", "1", "2", "3", "-"], "the connect twice"),
            (&["1", "2", "3", "-"], "before the connect"),
        ] {
            let wrong = wrong(life(3, None), events);
            assert!(wrong.iter().any(|wrong| wrong.contains(text)), "{events:?}: {wrong:?}");
        }
    }

    #[test]
    fn answers_are_held_against_the_marks() {
        let mut twice = life(2, None);
        twice.got.insert(1, "c:1".into());
        assert_eq!(wrong(twice.clone(), &["+", "1", "1!", "2", "-"]), [""; 0]);
        assert!(wrong(twice, &["+", "1", "2", "-"])[0].contains("the answer 1 twice"));
        let mut missing = life(3, None);
        missing.got.remove(1);
        assert!(wrong(missing, &["+", "1", "2", "3", "-"])[0].contains("the answer 3 after 1"));
        let mut stray = life(1, None);
        stray.got.insert(0, "d:1".into());
        assert!(wrong(stray, &["+", "1", "-"])[0].contains("stranger"));
    }
}
