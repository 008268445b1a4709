//! The request in a line.

pub(crate) const HELP: &str = "There are /nick NAME, /join GROUP, /leave GROUP, /who [GROUP], /tell NICK TEXT and /quit; all else is said to the \
     group that you joined last";

#[derive(Debug, PartialEq)]
pub(crate) enum Ask<'a> {
    Nick(&'a str),
    Join(&'a str),
    Leave(&'a str),
    Who(Option<&'a str>),
    Tell(&'a str, &'a str),
    Say(&'a str),
    Quit,
}

impl<'a> Ask<'a> {
    /// Reads a line. None if it is not understood.
    pub(crate) fn of(line: &'a str) -> Option<Self> {
        let line = line.trim();
        if !line.starts_with('/') {
            return Some(Self::Say(line));
        }
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match (command, rest.split_once(char::is_whitespace)) {
            ("/tell", Some((nick, text))) => Some(Self::Tell(nick, text.trim())),
            ("/nick", None) => Some(Self::Nick(rest)),
            ("/join", None) => Some(Self::Join(rest)),
            ("/leave", None) => Some(Self::Leave(rest)),
            ("/who", None) => Some(Self::Who(Some(rest).filter(|group| !group.is_empty()))),
            ("/quit", None) => Some(Self::Quit),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        for (line, ask) in [
            ("good morning", Some(Ask::Say("good morning"))),
            ("  a /join b", Some(Ask::Say("a /join b"))),
            ("/nick Ada", Some(Ask::Nick("Ada"))),
            ("/join  rust ", Some(Ask::Join("rust"))),
            ("/leave rust", Some(Ask::Leave("rust"))),
            ("/who", Some(Ask::Who(None))),
            ("/who rust", Some(Ask::Who(Some("rust")))),
            ("/tell ada  two words", Some(Ask::Tell("ada", "two words"))),
            ("/quit", Some(Ask::Quit)),
            ("/tell ada", None),
            ("/nick two words", None),
            ("/help", None),
            ("/", None),
        ] {
            assert_eq!(Ask::of(line), ask, "{line}");
        }
    }
}
