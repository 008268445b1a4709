//! Metrics in the text format of Prometheus, read strictly: what its documentation does not allow is a panic.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::clients::http;

/// Labels and their values.
pub type Labels = BTreeMap<String, String>;

/// What was served at one moment.
#[derive(Debug, Default)]
pub struct Scrape {
    /// The type of each metric.
    pub types: BTreeMap<String, String>,
    samples: BTreeMap<(String, Labels), f64>,
}

impl Scrape {
    /// Asks a node.
    ///
    /// # Panics
    ///
    /// When it does not answer, or not in the format.
    pub async fn of(address: SocketAddr) -> Self {
        let response = http::get(address, "/metrics").await;
        assert_eq!(response.status, 200, "{response:?}");
        let kind = response.header("content-type").unwrap_or_default();
        assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
        Self::parse(&response.body)
    }

    /// Asks a node, if it answers.
    pub async fn try_of(address: SocketAddr) -> Option<Self> {
        let request = format!("GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        let response = http::request(address, &request).await?;
        (response.status == 200).then(|| Self::parse(&response.body))
    }

    /// Reads the text.
    ///
    /// # Panics
    ///
    /// When it is not in the format.
    pub fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line has an end");
        let mut scrape = Self::default();
        let mut helped = BTreeSet::new();
        let mut current = String::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap_or_else(|| panic!("no text: {line}"));
                assert!(!help.trim().is_empty() && !help.contains('\\'), "{line}");
                assert!(helped.insert(name.to_owned()), "told twice: {line}");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
                assert!(helped.contains(name), "no help before: {line}");
                assert!(matches!(kind, "counter" | "gauge"), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                assert!(is_name(name, ":"), "{line}");
                assert!(
                    scrape.types.insert(name.into(), kind.into()).is_none(),
                    "typed twice: {line}"
                );
                current = name.into();
            } else {
                let (name, labels, value) = sample(line).unwrap_or_else(|| panic!("no sample: {line}"));
                assert_eq!(name, current, "not among its own: {line}");
                assert!(value.is_finite() && value >= 0.0, "{line}");
                let before = scrape.samples.insert((name, labels), value);
                assert!(before.is_none(), "there twice: {line}");
            }
        }
        scrape
    }

    /// The sum of the samples that have these labels.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let right = |of: &Labels| {
            labels
                .iter()
                .all(|(key, value)| of.get(*key).is_some_and(|v| v == value))
        };
        let mut found = self
            .samples
            .iter()
            .filter(|((other, of), _)| other == name && right(of))
            .peekable();
        assert!(found.peek().is_some(), "no {name} with {labels:?} in {self:?}");
        found.map(|(_, value)| value).sum()
    }

    /// All counters.
    pub fn counters(&self) -> impl Iterator<Item = (&(String, Labels), f64)> {
        let counters = self.samples.iter().filter(|((name, _), _)| name.ends_with("_total"));
        counters.map(|(key, value)| (key, *value))
    }

    /// The names of all labels.
    pub fn labels(&self) -> BTreeSet<&str> {
        let all = self.samples.keys().flat_map(|(_, labels)| labels.keys());
        all.map(String::as_str).collect()
    }
}

/// `name{label="value",…} value`
fn sample(line: &str) -> Option<(String, Labels, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            (is_name(label, "") && labels.insert(label.into(), value).is_none()).then_some(())?;
            rest = match after.strip_prefix(',') {
                Some(more) => more,
                None => break rest = after.strip_prefix('}')?,
            };
        }
    }
    let value = rest.strip_prefix(' ')?.parse().ok()?;
    is_name(name, ":").then(|| (name.into(), labels, value))
}

/// A value to its closing quote, and what comes after that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
    None
}

fn is_name(name: &str, more: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || more.contains(c);
    name.chars().all(allowed) && name.starts_with(|c: char| !c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_read() {
        let scrape = Scrape::parse("# HELP a It is.\n# TYPE a gauge\na{b=\"x\\\"\\\\\\n,}\",c=\"d\"} 2\na 1.5\n");
        assert_eq!(scrape.sum("a", &[("b", "x\"\\\n,}")]), 2.0);
        assert_eq!(scrape.sum("a", &[]), 3.5);
    }

    #[test]
    fn what_is_not_allowed_is_noticed() {
        let head = "# HELP a It is.\n# TYPE a gauge\n";
        for wrong in [
            "a 1\na 2\n",
            "b 1\n",
            "a{b=c} 1\n",
            "a{b=\"\\x\"} 1\n",
            "a{b=\"c\"}1\n",
            "a one\n",
            "a 1",
        ] {
            let text = format!("{head}{wrong}");
            assert!(std::panic::catch_unwind(|| Scrape::parse(&text)).is_err(), "{wrong:?}");
        }
    }
}
