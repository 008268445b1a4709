//! What an answer means for its event: it is done, sent again, or not wanted by the endpoint.

use std::time::Duration;

use hyper::StatusCode;

use super::endpoint::{EndpointResponse, NoResponse};

/// The longest pause that the endpoint can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What happens with an event after an attempt.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The event is done, by this answer.
    Done(EndpointResponse),
    /// The endpoint does not want the event: 4xx.
    Refused(EndpointResponse),
    /// The event is given up, for this reason.
    Failed(String),
    /// The event is sent again, after this pause at least.
    Again { why: String, pause: Duration },
}

/// Attempts that failed and for which the event may be to blame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    /// Faults of one kind after which the event is given up.
    most: u32,
    /// Answers that say that the application fails at it.
    failed: u32,
    /// Requests that were lost while others were answered.
    lost: u32,
    /// How many other events had been answered at the last attempt.
    others: u64,
}

impl Faults {
    /// None so far, `others` events were answered before.
    pub(crate) fn none(most: u32, others: u64) -> Self {
        Self {
            most,
            failed: 0,
            lost: 0,
            others,
        }
    }

    /// Judges an answer. `others`: events that have been answered by now.
    pub(crate) fn judge(&mut self, answer: Result<EndpointResponse, NoResponse>, others: u64) -> Verdict {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error @ NoResponse::TooLong(_)) => return Verdict::Failed(error.to_string()),
            Err(error @ NoResponse::Unreachable(_)) => return Verdict::again(error.to_string()),
            Err(error) => return self.lost(Verdict::again(error.to_string()), others),
        };
        let status = answer.status;
        let again = || Verdict::Again {
            why: format!("it answered {status}"),
            pause: answer.retry_after.unwrap_or_default().min(LONGEST_PAUSE),
        };
        match status {
            _ if status.is_success() => Verdict::Done(answer),
            // These say that it is away, or busy.
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => again(),
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => self.lost(again(), others),
            _ if status.is_client_error() => Verdict::Refused(answer),
            _ if status.is_redirection() => {
                let to = answer.location.unwrap_or_else(|| "nowhere".into());
                Verdict::Failed(format!("it answered {status} to {to}, and redirects are not followed"))
            }
            // The application fails at this one: others of the client are not to wait for ever.
            _ => {
                self.failed += 1;
                match self.failed < self.most {
                    true => again(),
                    false => Verdict::Failed(format!("it answered {status}, the last of {} faults", self.failed)),
                }
            }
        }
    }

    /// A request was taken, and no answer came. That is the event's fault only if others are answered meanwhile.
    fn lost(&mut self, again: Verdict, others: u64) -> Verdict {
        if self.others != others {
            self.others = others;
            self.lost += 1;
        }
        match again {
            Verdict::Again { why, .. } if self.lost >= self.most => {
                let times = self.lost;
                Verdict::Failed(format!("{why}, {times} times while other events were answered"))
            }
            again => again,
        }
    }
}

impl Verdict {
    fn again(why: String) -> Self {
        Self::Again {
            why,
            pause: Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16) -> EndpointResponse {
        EndpointResponse {
            status: StatusCode::from_u16(status).unwrap(),
            content_type: String::new(),
            retry_after: Some(Duration::from_secs(3600)),
            location: Some("/there".into()),
            body: bytes::Bytes::new(),
        }
    }

    fn said(verdict: Verdict) -> String {
        match verdict {
            Verdict::Done(_) => "done".into(),
            Verdict::Refused(_) => "refused".into(),
            Verdict::Failed(why) => why,
            Verdict::Again { pause, .. } => format!("again {pause:?}"),
        }
    }

    fn silence() -> Result<EndpointResponse, NoResponse> {
        Err(NoResponse::Timeout(Duration::from_secs(1)))
    }

    fn cut() -> Result<EndpointResponse, NoResponse> {
        Err(NoResponse::Broken("reset".into()))
    }

    #[test]
    fn each_status_has_its_meaning() {
        let of = |status| said(Faults::none(3, 0).judge(Ok(answer(status)), 0));
        for (statuses, meaning) in [
            (&[200, 201, 202, 204][..], "done"),
            (&[400, 401, 403, 404, 410, 413, 422, 451], "refused"),
            (&[408, 429, 500, 501, 502, 503, 504, 599], "again 60s"),
        ] {
            for status in statuses {
                assert_eq!(of(*status), meaning, "{status}");
            }
        }
        assert!(of(302).contains("/there"));
        let long = Faults::none(3, 0).judge(Err(NoResponse::TooLong(5)), 0);
        assert!(said(long).contains("5 bytes"));
    }

    #[test]
    fn an_outage_is_no_fault_of_the_application() {
        let mut faults = Faults::none(3, 7);
        for _ in 0..20 {
            let away = Err(NoResponse::Unreachable("connection refused".into()));
            assert_eq!(said(faults.judge(away, 7)), "again 0ns");
            assert_eq!(said(faults.judge(silence(), 7)), "again 0ns");
            assert_eq!(said(faults.judge(Ok(answer(502)), 7)), "again 60s");
        }
        assert_eq!(said(faults.judge(Ok(answer(500)), 7)), "again 60s");
        assert_eq!(said(faults.judge(Ok(answer(599)), 7)), "again 60s");
        assert!(said(faults.judge(Ok(answer(500)), 7)).contains("3 faults"));
    }

    #[test]
    fn what_is_lost_while_others_are_answered_has_an_end() {
        for lost in [silence, cut, || Ok(answer(502)), || Ok(answer(504))] {
            let mut faults = Faults::none(3, 0);
            // Others are answered before it, and then nobody is for long.
            for others in [1, 1, 1, 1, 2, 2, 2, 2] {
                assert!(said(faults.judge(lost(), others)).contains("again"));
            }
            assert!(said(faults.judge(lost(), 9)).contains("3 times while"));
        }
    }

    #[test]
    fn who_is_away_or_busy_is_waited_for_without_an_end() {
        let mut faults = Faults::none(3, 0);
        for others in 0..100 {
            for status in [408, 429, 503] {
                assert_eq!(said(faults.judge(Ok(answer(status)), others)), "again 60s");
            }
            let away = Err(NoResponse::Unreachable("connection refused".into()));
            assert_eq!(said(faults.judge(away, others)), "again 0ns");
        }
    }
}
