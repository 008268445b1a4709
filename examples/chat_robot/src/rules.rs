//! The robot's answers.
//!
//! The first rule whose key is in the sentence, word for word, gives the answer. `*` in an answer stands for the words after the key, said
//! from the robot's side: "my cat" becomes "your cat".

struct Rule {
    key: &'static str,
    answers: &'static [&'static str],
}

const RULES: &[Rule] = &[
    rule("hello", &["Hello to you. How has the day been so far?"]),
    rule(
        "goodbye",
        &["Goodbye. I stay here, as long as my worker is not replaced. Even then."],
    ),
    rule(
        "are you",
        &[
            "Would it change anything if I were *?",
            "What makes you ask whether I am *?",
        ],
    ),
    rule("i am", &["Since when are you *?", "How is it to be *?"]),
    rule(
        "i feel",
        &["When did you last feel *?", "What else goes with feeling *?"],
    ),
    rule(
        "i want",
        &["What would be different if you got *?", "Who else wants *?"],
    ),
    rule("i cannot", &["What would it take to *?"]),
    rule("because", &["Is that the only reason?", "And if it were not so?"]),
    rule(
        "my",
        &[
            "Tell me more about your *.",
            "What comes to mind first when you think of your *?",
        ],
    ),
    rule("you", &["Let us leave me out of it. How about yourself?"]),
    rule("why", &["What would be a good answer to that?"]),
    rule("yes", &["You sound sure. Go on."]),
    rule("no", &["Not at all, or not yet?"]),
];

/// Answers for a sentence that no rule fits; `*` is the topic that the person spoke of before.
const REMINDERS: &[&str] = &["Earlier you spoke of your *. Does this have to do with it?"];
const OTHERWISE: &[&str] = &["Go on.", "I see. And then?", "Can you give me an example?"];

const SWAPS: &[(&str, &str)] = &[
    ("i", "you"),
    ("me", "you"),
    ("my", "your"),
    ("mine", "yours"),
    ("myself", "yourself"),
    ("am", "are"),
    ("you", "I"),
    ("your", "my"),
    ("yours", "mine"),
    ("yourself", "myself"),
];

const fn rule(key: &'static str, answers: &'static [&'static str]) -> Rule {
    Rule { key, answers }
}

/// The answer to a sentence. Rules with several answers give them in turn.
pub(crate) fn answer(text: &str, topic: Option<&str>, turn: usize) -> String {
    let words = words(text);
    for rule in RULES {
        let Some(rest) = after(&words, rule.key) else { continue };
        let rest = swapped(rest);
        // An answer with `*` needs words after the key.
        let fits = |answer: &&&str| !rest.is_empty() || !answer.contains('*');
        let answers: Vec<_> = rule.answers.iter().filter(fits).collect();
        if !answers.is_empty() {
            return answers[turn % answers.len()].replace('*', &rest);
        }
    }
    match topic {
        Some(topic) if turn.is_multiple_of(2) => REMINDERS[turn / 2 % REMINDERS.len()].replace('*', topic),
        _ => OTHERWISE[turn % OTHERWISE.len()].into(),
    }
}

/// The topic of a sentence: the words after "my".
pub(crate) fn topic(text: &str) -> Option<String> {
    let words = words(text);
    let rest = swapped(after(&words, "my")?);
    Some(rest).filter(|rest| !rest.is_empty())
}

/// The words of the first sentence, in small letters.
fn words(text: &str) -> Vec<String> {
    let text = text.trim_start_matches(|c: char| !c.is_alphanumeric());
    let sentence = text.split(['.', '!', '?', ';', '\n']).next().unwrap_or_default();
    let plain = sentence
        .to_lowercase()
        .replace("i'm", "i am")
        .replace("can't", "cannot");
    let words = plain.split(|c: char| !(c.is_alphanumeric() || matches!(c, '\'' | '-')));
    words.filter(|word| !word.is_empty()).map(Into::into).collect()
}

/// The words after a key.
fn after<'a>(words: &'a [String], key: &str) -> Option<&'a [String]> {
    let key: Vec<_> = key.split(' ').collect();
    let at = words.windows(key.len()).position(|part| part == key)?;
    Some(&words[at + key.len()..])
}

fn swapped(words: &[String]) -> String {
    let swap = |word: &String| {
        let swap = SWAPS.iter().find(|(from, _)| from == word);
        swap.map_or(word.clone(), |(_, to)| (*to).into())
    };
    words.iter().map(swap).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_is_right_answers_from_the_robots_side() {
        for (text, turn, right) in [
            ("Hello!", 0, "Hello to you. How has the day been so far?"),
            ("I'm sad about my work", 0, "Since when are you sad about your work?"),
            ("I am sad", 1, "How is it to be sad?"),
            ("Are you like me?", 0, "Would it change anything if I were like you?"),
            (
                "My cat ignores me. Truly.",
                0,
                "Tell me more about your cat ignores you.",
            ),
            ("I can't sleep", 7, "What would it take to sleep?"),
            ("Mystery", 0, "Go on."),
            ("i am", 0, "Go on."),
            ("...", 1, "I see. And then?"),
        ] {
            assert_eq!(answer(text, None, turn), right, "{text}");
        }
    }

    #[test]
    fn it_comes_back_to_what_was_spoken_of() {
        let topic = topic("I miss my old house").expect("a topic");
        let reminder = "Earlier you spoke of your old house. Does this have to do with it?";
        assert_eq!(answer("Rain again", Some(&topic), 2), reminder);
        assert_eq!(answer("Rain again", Some(&topic), 1), "I see. And then?");
        assert_eq!(super::topic("Rain again"), None);
    }
}
