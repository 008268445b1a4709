//! The text of an error with its causes, and of a panic.

use std::any::Any;
use std::error::Error;

/// The text of an error with its causes, outermost first: the outermost error of a transport says next to nothing. A cause
/// whose text stands there already is left out.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// The text that a panic was given. `None` if its payload is no text.
pub fn of_panic(payload: &(dyn Any + Send)) -> Option<&str> {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::panic::catch_unwind;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<dyn Error + Send + Sync>>,
    }

    #[test]
    fn each_cause_is_said_once() {
        let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, "refused");
        let repeated = Layer {
            text: "cannot dial: refused",
            source: Some(refused().into()),
        };
        let outer = Layer {
            text: "transport",
            source: Some(repeated.into()),
        };
        assert_eq!(with_causes(&outer), "transport: cannot dial: refused");
        assert_eq!(with_causes(&refused()), "refused");
    }

    #[test]
    fn a_panic_has_the_text_that_it_was_given() {
        let payload = |panic: fn()| catch_unwind(panic).unwrap_err();
        assert_eq!(of_panic(&*payload(|| panic!("plain"))), Some("plain"));
        assert_eq!(of_panic(&*payload(|| panic!("with {}", 1))), Some("with 1"));
        assert_eq!(of_panic(&*payload(|| std::panic::panic_any(1))), None);
    }
}
