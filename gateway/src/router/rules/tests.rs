//! The router's rules, one by one.

use meepo_proto::link::{Closed, Handshake, Message, Opened, Request};

use super::model::{BOUNDS, message, number};
use super::*;

fn request(method: &str, head: usize) -> Body {
    let handshake = Handshake {
        path: "/".repeat(head),
        ..Handshake::default()
    };
    Body::Request(Box::new(Request {
        method: method.into(),
        handshake: Some(handshake),
        ..Request::default()
    }))
}

/// The links over which something is delivered.
fn delivered(out: &mut Vec<Output>) -> Vec<(ClientNumber, LinkId, Seq, bool)> {
    let delivered = |output| match output {
        Output::Deliver {
            client,
            link,
            seq,
            redelivered,
            ..
        } => Some((client, link, seq, redelivered)),
        _ => None,
    };
    out.drain(..).filter_map(delivered).collect()
}

#[test]
fn a_request_goes_to_the_link_with_the_least_to_do_and_each_has_its_turn() {
    let (mut router, mut out) = (Router::new(BOUNDS), Vec::new());
    for link in 1..=3 {
        router.link_up(LinkId(link), &mut out);
    }
    let mut taken = Vec::new();
    for number in 1..=6 {
        router.push(ClientNumber(number), request("GET", 0), &mut out);
        let (_, link, seq, _) = delivered(&mut out)[0];
        router.done(link, seq, &mut out);
        assert!(out.contains(&Output::Forget {
            client: ClientNumber(number)
        }));
        taken.push(link.0);
    }
    assert_eq!(taken, [1, 2, 3, 1, 2, 3]);
    router.push(ClientNumber(7), request("GET", 0), &mut out);
    router.push(ClientNumber(8), request("GET", 0), &mut out);
    router.push(ClientNumber(9), request("GET", 0), &mut out);
    let (_, link, seq, _) = delivered(&mut out)[2];
    router.done(link, seq, &mut out);
    router.push(ClientNumber(10), request("GET", 0), &mut out);
    assert_eq!(delivered(&mut out)[0].1, link, "the only one that has nothing to do");
    assert_eq!((router.in_flight(), router.waiting()), (3, 0));
}

#[test]
fn what_may_be_repeated_is_and_what_may_not_is_forgotten() {
    let (mut router, mut out) = (Router::new(BOUNDS), Vec::new());
    router.link_up(LinkId(1), &mut out);
    let methods = [
        "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "POST", "PATCH", "get", "LOCK",
    ];
    for (number, method) in (1..).zip(methods) {
        router.push(ClientNumber(number), request(method, 0), &mut out);
    }
    assert_eq!(delivered(&mut out).len(), 10);
    router.link_up(LinkId(2), &mut out);
    router.link_down(LinkId(1), Ending::Silent, &mut out);
    let forgotten: Vec<_> = out
        .iter()
        .filter_map(|output| match output {
            Output::Forget { client } => Some(client.0),
            _ => None,
        })
        .collect();
    assert_eq!(forgotten, [7, 8, 9, 10]);
    let again = delivered(&mut out);
    assert_eq!(
        again.iter().map(|again| again.0.0).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6]
    );
    assert!(again.iter().all(|(.., redelivered)| *redelivered));
}

#[test]
fn one_that_no_worker_has_had_is_not_lost_whatever_its_method() {
    let (mut router, mut out) = (Router::new(BOUNDS), Vec::new());
    router.link_up(LinkId(1), &mut out);
    router.push(ClientNumber(1), request("GET", 5_000), &mut out);
    router.push(ClientNumber(2), request("POST", 5_000), &mut out);
    assert_eq!(delivered(&mut out).len(), 1, "there is no room for the second");
    router.link_up(LinkId(2), &mut out);
    router.link_down(LinkId(1), Ending::Died, &mut out);
    let mut now = delivered(&mut out);
    let (_, link, seq, _) = now.remove(0);
    router.done(link, seq, &mut out);
    now.extend(delivered(&mut out));
    assert_eq!(now, [(ClientNumber(2), LinkId(2), Seq(2), false)]);
}

#[test]
fn nobody_who_waits_means_no_second_worker() {
    let (mut router, mut out) = (Router::new(BOUNDS), Vec::new());
    router.push(ClientNumber(1), request("GET", 0), &mut out);
    router.dismiss(ClientNumber(1), &mut out);
    assert!(router.is_idle());
    router.link_up(LinkId(1), &mut out);
    router.push(ClientNumber(2), request("GET", 0), &mut out);
    assert_eq!(delivered(&mut out).len(), 1);
    router.dismiss(ClientNumber(2), &mut out);
    assert!(!router.is_idle(), "its handler goes on");
    router.link_up(LinkId(2), &mut out);
    router.link_down(LinkId(1), Ending::Died, &mut out);
    assert_eq!((delivered(&mut out), router.is_idle()), (vec![], true));
}

fn up(router: &mut Router, link: u64) -> Vec<Output> {
    let mut out = Vec::new();
    router.link_up(LinkId(link), &mut out);
    out
}

fn deliveries(out: &[Output]) -> Vec<(u64, u64, bool)> {
    out.iter()
        .filter_map(|output| match output {
            Output::Deliver {
                link,
                client,
                redelivered,
                ..
            } => Some((link.0, client.0, *redelivered)),
            _ => None,
        })
        .collect()
}

#[test]
fn clients_go_to_the_link_with_the_fewest() {
    let mut router = Router::new(BOUNDS);
    up(&mut router, 1);
    up(&mut router, 2);
    let mut out = Vec::new();
    for client in 1..=4 {
        router.push(ClientNumber(client), Body::Opened(Opened {}), &mut out);
    }
    assert_eq!(
        deliveries(&out),
        [(1, 1, false), (2, 2, false), (1, 3, false), (2, 4, false)]
    );
}

#[test]
fn an_event_that_ends_link_after_link_is_given_up() {
    let mut router = Router::new(BOUNDS);
    let mut out = Vec::new();
    router.push(ClientNumber(1), Body::Opened(Opened {}), &mut out);
    for link in 1..=2 {
        assert_eq!(deliveries(&up(&mut router, link)), [(link, 1, link > 1)]);
        out.clear();
        router.link_down(LinkId(link), Ending::Died, &mut out);
    }
    assert_eq!(
        out,
        [Output::Hold {
            client: ClientNumber(1)
        }]
    );
    out.clear();
    assert_eq!(up(&mut router, 3), [], "it has to wait");
    router.release(ClientNumber(1), &mut out);
    assert_eq!(deliveries(&out), [(3, 1, true)]);
    out.clear();
    router.link_down(LinkId(3), Ending::Died, &mut out);
    assert_eq!(
        out,
        [Output::GiveUp {
            client: ClientNumber(1)
        }]
    );
    assert!(router.is_idle());
}

#[test]
fn workers_that_die_together_are_not_the_doing_of_an_event() {
    let mut router = Router::new(BOUNDS);
    let mut out = Vec::new();
    for link in 1..=8 {
        up(&mut router, link);
    }
    router.push(ClientNumber(1), Body::Opened(Opened {}), &mut out);
    for link in 1..=8 {
        router.link_down(LinkId(link), Ending::Died, &mut out);
    }
    assert!(!out.contains(&Output::GiveUp {
        client: ClientNumber(1)
    }));
    up(&mut router, 9);
    out.clear();
    router.release(ClientNumber(1), &mut out);
    assert_eq!(deliveries(&out), [(9, 1, true)]);
}

#[test]
fn a_handler_that_was_cut_off_takes_back_what_is_behind_its_event() {
    let mut router = Router::new(BOUNDS);
    up(&mut router, 1);
    let mut out = Vec::new();
    for number in 1..=3 {
        router.push(ClientNumber(1), message(number), &mut out);
    }
    router.done(LinkId(1), Seq(1), &mut out);
    up(&mut router, 2);
    out.clear();
    router.undone(LinkId(1), Seq(2), false, &mut out);
    assert_eq!(
        deliveries(&out),
        [(1, 1, true), (1, 1, true)],
        "it is the emptier one, or as empty"
    );
    out.clear();
    // What it says of events that were taken back counts no more.
    router.done(LinkId(1), Seq(3), &mut out);
    router.undone(LinkId(1), Seq(2), false, &mut out);
    assert_eq!((out.as_slice(), router.in_flight()), ([].as_slice(), 2));
    router.undone(LinkId(1), Seq(4), false, &mut out);
    assert_eq!(
        out,
        [Output::Hold {
            client: ClientNumber(1)
        }]
    );
    out.clear();
    router.release(ClientNumber(1), &mut out);
    router.undone(LinkId(1), Seq(6), false, &mut out);
    assert!(out.contains(&Output::GiveUp {
        client: ClientNumber(1)
    }));
}

#[test]
fn what_draining_workers_hand_back_is_never_given_up() {
    let mut router = Router::new(BOUNDS);
    let mut out = up(&mut router, 1);
    router.push(ClientNumber(1), message(1), &mut out);
    router.push(ClientNumber(1), message(2), &mut out);
    for link in 1..=40 {
        up(&mut router, link + 1);
        router.link_draining(LinkId(link), &mut out);
        out.clear();
        router.undone(LinkId(link), Seq(1), true, &mut out);
        assert_eq!(deliveries(&out), [(link + 1, 1, true), (link + 1, 1, true)]);
        assert!(
            out.contains(&Output::Finished { link: LinkId(link) }),
            "nothing holds up its end"
        );
        router.link_down(LinkId(link), Ending::Silent, &mut out);
    }
    // One that does not drain is as to blame as for a handler that was cut off.
    for _ in 0..3 {
        let seq = Seq(router.links[&LinkId(41)].last_seq().0 - 1);
        out.clear();
        router.undone(LinkId(41), seq, true, &mut out);
        router.release(ClientNumber(1), &mut out);
    }
    assert!(
        out.contains(&Output::GiveUp {
            client: ClientNumber(1)
        }),
        "{out:?}"
    );
}

#[test]
fn a_client_that_no_worker_knows_can_be_dropped() {
    let mut router = Router::new(BOUNDS);
    let mut out = Vec::new();
    router.push(ClientNumber(1), Body::Opened(Opened {}), &mut out);
    assert!(router.abandon(ClientNumber(1), &mut out));
    assert_eq!(
        out,
        [Output::Forget {
            client: ClientNumber(1)
        }]
    );
    router.push(ClientNumber(2), Body::Opened(Opened {}), &mut out);
    up(&mut router, 1);
    assert!(!router.abandon(ClientNumber(2), &mut out), "the worker has been asked");
}

#[test]
fn a_rejected_client_is_not_asked_about_again() {
    let mut router = Router::new(BOUNDS);
    up(&mut router, 1);
    let mut out = Vec::new();
    router.push(ClientNumber(1), Body::Opened(Opened {}), &mut out);
    router.dismiss(ClientNumber(1), &mut out);
    router.link_down(LinkId(1), Ending::Died, &mut out);
    assert_eq!(
        out.last(),
        Some(&Output::Forget {
            client: ClientNumber(1)
        })
    );
    assert!(deliveries(&up(&mut router, 2)).is_empty());
}

#[test]
fn a_worker_that_has_forgotten_a_client_is_told_again_who_it_is() {
    let mut router = Router::new(BOUNDS);
    up(&mut router, 1);
    let mut out = Vec::new();
    router.push(ClientNumber(1), Body::Opened(Opened {}), &mut out);
    router.done(LinkId(1), Seq(1), &mut out);
    router.forgotten(ClientNumber(1));
    out.clear();
    router.push(ClientNumber(1), Body::Closed(Closed::default()), &mut out);
    assert!(matches!(out[..], [Output::Deliver { first: true, .. }]), "{out:?}");
}

#[test]
fn a_full_link_holds_back_until_there_is_room() {
    let mut router = Router::new(Bounds {
        link_in_flight_bytes: 300,
        ..BOUNDS
    });
    up(&mut router, 1);
    let mut out = Vec::new();
    for client in 1..=3 {
        router.push(ClientNumber(client), message(1), &mut out);
    }
    assert_eq!(deliveries(&out), [(1, 1, false), (1, 2, false)]);
    out.clear();
    router.done(LinkId(1), Seq(1), &mut out);
    assert_eq!(deliveries(&out), [(1, 3, false)]);
}

#[test]
fn a_client_settles_when_the_last_event_is_done() {
    let mut router = Router::new(BOUNDS);
    up(&mut router, 1);
    let mut out = Vec::new();
    assert!(router.settle(ClientNumber(1)), "nothing is known of it");
    router.push(ClientNumber(1), message(1), &mut out);
    router.push(ClientNumber(1), message(2), &mut out);
    assert!(!router.settle(ClientNumber(1)));
    router.done(LinkId(1), Seq(1), &mut out);
    assert!(!out.contains(&Output::Settled {
        client: ClientNumber(1)
    }));
    router.done(LinkId(1), Seq(2), &mut out);
    assert!(out.contains(&Output::Settled {
        client: ClientNumber(1)
    }));
}

#[test]
fn idle_clients_are_handed_over() {
    let mut router = Router::new(BOUNDS);
    up(&mut router, 1);
    let mut out = Vec::new();
    router.push(ClientNumber(1), Body::Opened(Opened {}), &mut out);
    router.done(LinkId(1), Seq(1), &mut out);
    out.clear();
    router.link_down(LinkId(1), Ending::Died, &mut out);
    assert_eq!(out, [], "nobody is there");
    assert_eq!(
        up(&mut router, 2),
        [Output::Attach {
            link: LinkId(2),
            client: ClientNumber(1)
        }]
    );
    up(&mut router, 3);
    router.link_draining(LinkId(2), &mut out);
    let moved = [
        Output::Detach {
            link: LinkId(2),
            client: ClientNumber(1),
        },
        Output::Attach {
            link: LinkId(3),
            client: ClientNumber(1),
        },
        Output::Finished { link: LinkId(2) },
    ];
    assert_eq!(out, moved);
}

#[test]
fn a_suspect_is_tried_alone() {
    let mut router = Router::new(BOUNDS);
    let mut out = Vec::new();
    for client in 1..=3 {
        router.push(ClientNumber(client), Body::Opened(Opened {}), &mut out);
    }
    for link in 1..=2 {
        assert_eq!(
            deliveries(&up(&mut router, link)).len(),
            3,
            "all of them go to the link"
        );
        router.link_down(LinkId(link), Ending::Died, &mut out);
    }
    out.clear();
    // The next end of a link would be the last for an event: of the three only one is risked at a time.
    up(&mut router, 3);
    for client in 1..=3 {
        router.release(ClientNumber(client), &mut out);
    }
    assert_eq!(deliveries(&out), [(3, 1, true)]);
    out.clear();
    router.link_down(LinkId(3), Ending::Died, &mut out);
    assert_eq!(
        out,
        [Output::GiveUp {
            client: ClientNumber(1)
        }]
    );
    assert_eq!(deliveries(&up(&mut router, 4)), [(4, 2, true)]);
    out.clear();
    router.done(LinkId(4), Seq(1), &mut out);
    assert_eq!(deliveries(&out), [(4, 3, true)]);
}

#[test]
fn a_suspect_that_has_to_wait_leaves_room_to_others() {
    let mut router = Router::new(Bounds {
        link_in_flight_bytes: 300,
        max_deliveries: 2,
        ..BOUNDS
    });
    let mut out = Vec::new();
    up(&mut router, 1);
    for client in [1, 2] {
        router.push(ClientNumber(client), message(1), &mut out);
    }
    router.link_down(LinkId(1), Ending::Died, &mut out);
    up(&mut router, 2);
    let large = Body::Message(Message {
        payload: vec![0; 250].into(),
        binary: true,
    });
    router.push(ClientNumber(3), large, &mut out);
    for client in [1, 2] {
        router.release(ClientNumber(client), &mut out);
    }
    router.push(ClientNumber(4), message(1), &mut out);
    out.clear();
    router.done(LinkId(2), Seq(1), &mut out);
    assert_eq!(deliveries(&out), [(2, 1, true), (2, 4, false)]);
}

#[test]
fn a_large_event_is_not_overtaken_for_ever() {
    let mut router = Router::new(BOUNDS);
    up(&mut router, 1);
    let large = Body::Message(Message {
        payload: vec![0; 1_800].into(),
        binary: true,
    });
    let mut out = Vec::new();
    router.push(ClientNumber(1), message(1), &mut out);
    router.push(ClientNumber(2), large, &mut out);
    router.push(ClientNumber(3), message(1), &mut out);
    assert_eq!(
        deliveries(&out),
        [(1, 1, false)],
        "the small one waits behind the large one"
    );
    out.clear();
    router.done(LinkId(1), Seq(1), &mut out);
    assert_eq!(deliveries(&out), [(1, 2, false)]);
}

#[test]
fn nobody_is_read_while_too_much_waits() {
    let mut router = Router::new(Bounds {
        waiting_bytes: 300,
        ..BOUNDS
    });
    let mut out = Vec::new();
    assert_eq!(router.push(ClientNumber(1), message(1), &mut out), Flow::Go);
    assert_eq!(router.push(ClientNumber(1), message(2), &mut out), Flow::Go);
    assert_eq!(router.push(ClientNumber(1), message(3), &mut out), Flow::Pause);
    assert_eq!(router.flow(ClientNumber(2)), Flow::Pause);
    let out = up(&mut router, 1);
    for client in [1, 2] {
        let client = ClientNumber(client);
        assert!(out.contains(&Output::Resume { client }), "{out:?}");
    }
}

#[test]
fn a_worker_out_of_order_harms_nothing() {
    let mut router = Router::new(BOUNDS);
    up(&mut router, 1);
    let mut out = Vec::new();
    router.push(ClientNumber(1), message(1), &mut out);
    router.push(ClientNumber(1), Body::Closed(Closed::default()), &mut out);
    router.done(LinkId(1), Seq(2), &mut out);
    router.done(LinkId(1), Seq(1), &mut out);
    router.done(LinkId(1), Seq(99), &mut out);
    assert!(router.is_idle() && router.client_queues.is_empty());
}

#[test]
fn a_reply_is_done_before_the_event_whose_handler_asked() {
    let mut router = Router::new(BOUNDS);
    up(&mut router, 1);
    let mut out = Vec::new();
    for number in 1..=6 {
        router.push(ClientNumber(1), message(number), &mut out);
    }
    assert_eq!(deliveries(&out).len(), BOUNDS.client_in_flight);
    out.clear();
    // It makes room for the next one.
    router.done(LinkId(1), Seq(3), &mut out);
    assert_eq!(deliveries(&out), [(1, 1, false)]);
    // A client does not move before the handler that asks has finished.
    up(&mut router, 2);
    out.clear();
    router.link_draining(LinkId(1), &mut out);
    router.done(LinkId(1), Seq(4), &mut out);
    assert_eq!(out, []);
    // If its worker dies, the event comes again, and not the replies.
    router.link_down(LinkId(1), Ending::Died, &mut out);
    let again: Vec<_> = out
        .iter()
        .filter_map(|output| match output {
            Output::Deliver { body, redelivered, .. } => Some((number(body), *redelivered)),
            _ => None,
        })
        .collect();
    assert_eq!(again, [(1, true), (2, true), (5, true), (6, false)]);
}

#[test]
fn a_network_that_is_cut_is_no_death() {
    let mut router = Router::new(BOUNDS);
    let mut out = Vec::new();
    router.push(ClientNumber(1), Body::Opened(Opened {}), &mut out);
    for link in 1..BOUNDS.max_returns.into() {
        assert_eq!(deliveries(&up(&mut router, link)), [(link, 1, link > 1)]);
        out.clear();
        router.link_down(LinkId(link), Ending::Silent, &mut out);
        assert_eq!(out, []);
    }
    up(&mut router, 16);
    router.link_down(LinkId(16), Ending::Silent, &mut out);
    assert_eq!(
        out,
        [Output::GiveUp {
            client: ClientNumber(1)
        }],
        "but not for ever"
    );
}

#[test]
fn requests_are_no_clients_when_a_link_is_chosen_for_one() {
    let mut router = Router::new(BOUNDS);
    let mut out = up(&mut router, 1);
    for number in 1..=2 {
        router.push(ClientNumber(number), request("GET", 0), &mut out);
    }
    up(&mut router, 2);
    router.push(ClientNumber(3), message(1), &mut out);
    router.push(ClientNumber(4), message(1), &mut out);
    router.done(LinkId(1), Seq(1), &mut out);
    router.push(ClientNumber(5), message(1), &mut out);
    assert_eq!(deliveries(&out)[2..], [(1, 3, false), (2, 4, false), (1, 5, false)]);
}

#[test]
fn who_uploads_keeps_no_client_waiting() {
    let mut router = Router::new(BOUNDS);
    up(&mut router, 1);
    let mut out = Vec::new();
    let upload = |body: usize| {
        Body::Request(Box::new(Request {
            method: "POST".into(),
            body: vec![0; body].into(),
            ..Request::default()
        }))
    };
    for client in 1..=3 {
        router.push(ClientNumber(client), upload(BOUNDS.link_in_flight_bytes), &mut out);
    }
    router.push(ClientNumber(4), message(1), &mut out);
    assert_eq!(deliveries(&out).len(), 4, "all at once");
}
