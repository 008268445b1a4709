//! What an answer means: the event is done, it is sent again, or the endpoint does not want it.

use std::time::Duration;

use hyper::StatusCode;

use super::endpoint::{Answer, NoAnswer};

/// The longest pause that the endpoint can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is to become of an event.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It is done, and this is the answer.
    Done(Answer),
    /// The endpoint does not want it: 4xx.
    Refused(Answer),
    /// It is not sent again, and this is why.
    Failed(String),
    /// It is sent again, after this pause at least.
    Again { why: String, pause: Duration },
}

impl Verdict {
    /// Judges the answer to the last of so many attempts, where 500 may be the answer to so many.
    pub(crate) fn of(answer: Result<Answer, NoAnswer>, attempt: u32, attempts: u32) -> Self {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error @ NoAnswer::TooLong(_)) => return Self::Failed(error.to_string()),
            Err(error) => {
                return Self::Again {
                    why: error.to_string(),
                    pause: Duration::ZERO,
                };
            }
        };
        let status = answer.status;
        let again = |answer: Answer| Self::Again {
            why: format!("it answered {status}"),
            pause: answer.retry_after.unwrap_or_default().min(LONGEST_PAUSE),
        };
        match status {
            _ if status.is_success() => Self::Done(answer),
            // These say that it is away, or busy.
            StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => again(answer),
            _ if status.is_client_error() => Self::Refused(answer),
            _ if status.is_redirection() => {
                let to = answer.location.unwrap_or_else(|| "nowhere".into());
                Self::Failed(format!("it answered {status} to {to}, and redirects are not followed"))
            }
            // The application fails at this one: others of the client are not to wait for ever.
            _ if attempt < attempts => again(answer),
            _ => Self::Failed(format!("it answered {status}, {attempt} times")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            content_type: String::new(),
            retry_after: Some(Duration::from_secs(3600)),
            location: Some("/there".into()),
            body: bytes::Bytes::new(),
        }
    }

    fn of(status: u16, attempt: u32) -> String {
        match Verdict::of(Ok(answer(status)), attempt, 3) {
            Verdict::Done(_) => "done".into(),
            Verdict::Refused(_) => "refused".into(),
            Verdict::Failed(why) => why,
            Verdict::Again { pause, .. } => format!("again {pause:?}"),
        }
    }

    #[test]
    fn each_status_has_its_meaning() {
        for (statuses, meaning) in [
            (&[200, 201, 202, 204][..], "done"),
            (&[400, 401, 403, 404, 410, 413, 422, 451], "refused"),
            (&[408, 429, 500, 501, 502, 503, 504, 599], "again 60s"),
        ] {
            for status in statuses {
                assert_eq!(of(*status, 1), meaning, "{status}");
            }
        }
        assert!(of(302, 1).contains("/there"));
    }

    #[test]
    fn only_a_fault_of_the_application_has_an_end() {
        assert_eq!(of(500, 2), "again 60s");
        assert!(of(500, 3).contains("3 times"));
        for status in [408, 429, 502, 503, 504] {
            assert_eq!(of(status, 1_000_000), "again 60s");
        }
        let away = Verdict::of(Err(NoAnswer::Timeout(Duration::from_secs(1))), 1_000_000, 3);
        assert!(matches!(away, Verdict::Again { .. }));
        assert!(matches!(
            Verdict::of(Err(NoAnswer::TooLong(5)), 1, 3),
            Verdict::Failed(_)
        ));
    }
}
