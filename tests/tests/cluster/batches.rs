//! Messages to groups that follow each other, from a worker that the test plays: the gateway may put them together, and no
//! client may see that.

use meepo_proto::link::{Bind, Close, Done, Join, Leave, RefusedWhy, Send, Target, command, event, send};
use meepo_tests::played::{Place, Worker, client_of, seq_of};
use meepo_tests::{Status, Ws, wait_for};

fn send(to: Target, text: &str) -> command::Body {
    command::Body::Send(Send {
        payload: text.to_owned().into(),
        to: Some(send::To::Target(Box::new(to))),
        ..Send::default()
    })
}

fn group(name: &str) -> Target {
    Target {
        groups: vec![name.into()],
        ..Target::default()
    }
}

fn join(client: u64, group: &str) -> command::Body {
    let group = group.into();
    command::Body::Join(Join { client, group })
}

fn leave(client: u64, group: &str) -> command::Body {
    let group = group.into();
    command::Body::Leave(Leave { client, group })
}

async fn texts(client: &mut Ws, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    for _ in 0..count {
        texts.push(client.text().await);
    }
    texts
}

/// Says all at once: the gateway has them in one turn.
fn say_all(worker: &Worker, bodies: Vec<command::Body>) {
    for body in bodies {
        worker.say(body);
    }
}

#[tokio::test]
async fn each_member_gets_what_was_sent_while_it_was_one_and_in_that_order() {
    let place = Place::new().await;
    let mut worker = place.worker(true).await;
    let (mut ann, a) = place.client(&mut worker).await;
    let (mut bob, b) = place.client(&mut worker).await;
    let large = "x".repeat(20_000);
    let but_ann = Target {
        except: vec![a],
        ..group("g")
    };
    let everyone = Target {
        everyone: true,
        ..Target::default()
    };
    for _ in 0..20 {
        ann.send("go").await;
        let go = seq_of(&worker.next().await);
        let to_ann = command::Body::Send(Send {
            payload: "4".into(),
            to: Some(send::To::Client(a)),
            ..Send::default()
        });
        say_all(
            &worker,
            vec![
                join(a, "g"),
                send(group("g"), "1"),
                send(group("g"), "2"),
                join(b, "g"),
                send(group("g"), "3"),
                to_ann,
                command::Body::Done(Done { seq: vec![go] }),
                send(group("g"), "5"),
                send(but_ann.clone(), "6"),
                send(but_ann.clone(), "7"),
                send(everyone.clone(), "8"),
                send(group("nobody"), "9"),
                send(group("g"), &large),
                send(group("g"), &large),
                send(group("g"), "10"),
                leave(a, "g"),
                send(group("g"), "11"),
                send(group("g"), "12"),
                leave(b, "g"),
                send(everyone.clone(), "end"),
            ],
        );
        assert_eq!(
            texts(&mut ann, 9).await,
            ["1", "2", "3", "4", "5", "8", &large, &large, "10"]
        );
        assert_eq!(
            texts(&mut bob, 10).await,
            ["3", "5", "6", "7", "8", &large, &large, "10", "11", "12"]
        );
        assert_eq!([ann.text().await, bob.text().await], ["end", "end"]);
    }
    let all_done = |status: &Status| status.instance("gateway").sum(|child| child.events_in_flight) == 0;
    let status = place.gateway.status_when("all is done", all_done).await;
    let sent = status.instance("gateway").sum(|child| child.messages_out);
    assert_eq!(sent, 20 * (9 + 10 + 2));
}

#[tokio::test]
async fn each_member_gets_what_the_others_say() {
    let place = Place::new().await;
    let mut worker = place.worker(true).await;
    let mut clients = Vec::new();
    for uid in ["ann", "bob", "cleo"] {
        let (client, number) = place.client(&mut worker).await;
        worker.say(join(number, "g"));
        worker.say(command::Body::Bind(Bind {
            client: number,
            uid: uid.into(),
        }));
        clients.push((client, number, uid));
    }
    let mut bodies = Vec::new();
    for round in 0..20 {
        for (_, number, uid) in &clients {
            // Left out by number, by uid, and by both.
            let to = Target {
                except: vec![*number; round % 3],
                except_uids: vec![(*uid).to_owned(); usize::from(round % 3 != 1)],
                ..group("g")
            };
            bodies.push(send(to, &format!("{uid} {round}")));
        }
    }
    bodies.push(send(group("g"), "end"));
    say_all(&worker, bodies);
    for (client, _, own) in &mut clients {
        for round in 0..20 {
            for uid in ["ann", "bob", "cleo"] {
                if uid != *own {
                    assert_eq!(client.text().await, format!("{uid} {round}"));
                }
            }
        }
        assert_eq!(client.text().await, "end");
    }
    let sent = |status: &Status| status.instance("gateway").sum(|child| child.messages_out);
    let all = |status: &Status| sent(status) >= 3 * (2 * 20 + 1);
    let status = place.gateway.status_when("all are counted", all).await;
    assert_eq!(sent(&status), 3 * (2 * 20 + 1));
}

#[tokio::test]
async fn a_client_that_is_gone_is_told_of_once_for_each_message_that_is_to_it() {
    let place = Place::new().await;
    let mut worker = place.worker(true).await;
    let (mut ann, a) = place.client(&mut worker).await;
    const GONE: u64 = 1 << 40;
    let both = |except: &[u64]| Target {
        clients: vec![GONE, a],
        except: except.to_vec(),
        ..Target::default()
    };
    say_all(
        &worker,
        vec![
            send(both(&[]), "1"),
            send(both(&[GONE]), "2"),
            send(both(&[a]), "3"),
            send(both(&[a, GONE]), "4"),
            send(both(&[]), "5"),
        ],
    );
    assert_eq!(texts(&mut ann, 3).await, ["1", "2", "5"]);
    for _ in 0..3 {
        let event = worker.next().await;
        assert_eq!(client_of(&event), Some(GONE));
        let Some(event::Body::Refused(refused)) = event.body else {
            panic!("it is refused: {event:?}")
        };
        assert_eq!((&*refused.command, refused.why()), ("send", RefusedWhy::Gone));
    }
    ann.send("go").await;
    assert_eq!(client_of(&worker.next().await), Some(a), "no more refusals");
}

#[tokio::test]
async fn of_messages_that_went_together_a_slow_client_gets_as_many_as_there_is_room_for() {
    const AT_ONCE: u64 = 100;
    let place = Place::with("send_buffer = \"64KiB\"\nslow_client = \"drop\"").await;
    let mut worker = place.worker(true).await;
    let host = place.gateway.host().ws();
    let (mut slow, number) = place
        .client_by(&mut worker, Ws::connect_with_buffer(host, "/", 4096))
        .await;
    worker.say(join(number, "g"));
    let mut said = 0;
    let figures = async || {
        let status = place.gateway.status().await;
        let gateway = status.instance("gateway");
        (
            gateway.sum(|child| child.messages_out),
            gateway.sum(|child| child.dropped_sends),
        )
    };
    // Until two bursts in a row have found no room for all.
    let mut dropped = 0;
    let sent = loop {
        for number in said..said + AT_ONCE {
            worker.say(send(group("g"), &format!("{number:01000}")));
        }
        said += AT_ONCE;
        let before = dropped;
        let sent = wait_for("all are counted", async || {
            let (sent, more) = figures().await;
            dropped = more;
            (sent + more == said).then_some(sent)
        })
        .await;
        if before > 0 && dropped > before {
            break sent;
        }
    };
    let mut last = None;
    for _ in 0..sent {
        let number: u64 = slow.text().await.parse().expect("a number");
        assert!(last.is_none_or(|last| last < number), "{number} after {last:?}");
        last = Some(number);
    }
    worker.say(send(group("g"), "the end"));
    assert_eq!(slow.text().await, "the end");
}

#[tokio::test]
async fn what_was_sent_before_a_close_arrives_before_it() {
    let place = Place::new().await;
    let mut worker = place.worker(true).await;
    let (mut ann, a) = place.client(&mut worker).await;
    let close = command::Body::Close(Box::new(Close {
        target: Some(group("g")),
        code: Some(4000),
        ..Close::default()
    }));
    say_all(
        &worker,
        vec![join(a, "g"), send(group("g"), "1"), send(group("g"), "2"), close],
    );
    assert_eq!(texts(&mut ann, 2).await, ["1", "2"]);
    assert_eq!(ann.closed().await.0, 4000);
}
