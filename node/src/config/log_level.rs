//! The setting `log_level`: a level for everything, or levels by target.

use tracing_subscriber::filter::{LevelFilter, Targets};

/// A part of a `log_level` that is no level and no target with a level.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is neither a level, such as \"info\", nor a target with one, such as \"meepo_gateway=debug\"")]
pub(crate) struct WrongLogLevel(String);

/// Reads a `log_level`: levels and `TARGET=LEVEL`, with commas between them. A target without a level logs everything; an
/// empty text logs errors.
pub(crate) fn targets(text: &str) -> Result<Targets, WrongLogLevel> {
    let directives = text.split(',').map(str::trim).filter(|directive| !directive.is_empty());
    let directives: Vec<&str> = directives.collect();
    if directives.is_empty() {
        return Ok(Targets::new().with_default(LevelFilter::ERROR));
    }
    let mut targets = Targets::new();
    for directive in directives {
        let level = |text: &str| text.parse::<LevelFilter>().ok().filter(|_| !text.is_empty());
        let (target, level) = match directive.split_once('=') {
            Some((target, text)) => (Some(target.trim()), level(text.trim())),
            None if level(directive).is_some() => (None, level(directive)),
            None => (Some(directive), Some(LevelFilter::TRACE)),
        };
        targets = match (target, level) {
            (None, Some(level)) => targets.with_default(level),
            (Some(target), Some(level)) if is_target(target) => targets.with_target(target, level),
            _ => return Err(WrongLogLevel(directive.into())),
        };
    }
    Ok(targets)
}

/// Targets are paths of modules, or names that an application gives.
fn is_target(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "_:-.".contains(c))
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::filter::Targets;

    use super::*;

    #[test]
    fn levels_hold_for_all_or_for_targets() {
        let info = || Targets::new().with_default(LevelFilter::INFO);
        for (text, targets) in [
            ("info", info()),
            ("INFO", info()),
            (" info , ", info()),
            ("", Targets::new().with_default(LevelFilter::ERROR)),
            ("off", Targets::new().with_default(LevelFilter::OFF)),
            ("info,echo=debug", info().with_target("echo", LevelFilter::DEBUG)),
            (
                "meepo_node::process=warn, my-app = trace,info",
                info()
                    .with_target("meepo_node::process", LevelFilter::WARN)
                    .with_target("my-app", LevelFilter::TRACE),
            ),
            ("echo", Targets::new().with_target("echo", LevelFilter::TRACE)),
        ] {
            assert_eq!(self::targets(text), Ok(targets), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_by_its_name() {
        for (text, wrong) in [
            ("=,=", "="),
            ("info,=debug", "=debug"),
            ("info,echo=", "echo="),
            ("echo=loud", "echo=loud"),
            ("echo=debug=info", "echo=debug=info"),
            ("[span]=debug", "[span]=debug"),
        ] {
            assert_eq!(targets(text), Err(WrongLogLevel(wrong.into())), "{text}");
        }
    }
}
