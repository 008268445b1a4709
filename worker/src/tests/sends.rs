//! Whom a message goes to, from outside of a handler.

use meepo_proto::link as wire;
use meepo_proto::link::command::Body as Command;
use meepo_proto::link::send::To;
use meepo_proto::{ClientId, GatewayId};

use super::gateway::Gateway;
use super::{Running, eventually};
use crate::{CloseCause, CloseReason};

fn id(gateway: u64, number: u64) -> ClientId {
    ClientId::new(GatewayId(gateway), number)
}

fn sent(text: &str, except: &[u64], to: To) -> Command {
    Command::Send(wire::Send {
        payload: text.to_owned().into(),
        binary: false,
        except: except.to_vec(),
        to: Some(to),
    })
}

fn clients(clients: &[u64]) -> To {
    To::Clients(wire::Clients {
        clients: clients.to_vec(),
    })
}

#[tokio::test]
async fn each_gateway_gets_its_part() {
    let worker = Running::start();
    let (mut first, mut second) = (Gateway::start(1).await, Gateway::start(2).await);
    worker.name(&first);
    worker.name(&second);
    let (mut one, mut two) = (first.link().await, second.link().await);
    eventually("both links", || worker.stats.links.get() == 2).await;
    let cluster = worker.cluster();

    cluster
        .group("g")
        .except(id(2, 7))
        .except(id(2, 8))
        .send("to the group");
    let group = To::Group("g".into());
    assert_eq!(one.next().await, sent("to the group", &[], group.clone()));
    assert_eq!(two.next().await, sent("to the group", &[7, 8], group));

    cluster.all().except(id(1, 5)).send("to all");
    let everyone = To::Everyone(wire::Everyone {});
    assert_eq!(one.next().await, sent("to all", &[5], everyone.clone()));
    assert_eq!(two.next().await, sent("to all", &[], everyone));

    let some = [id(1, 1), id(2, 1), id(1, 2), id(3, 1)];
    cluster.clients(some).except(id(1, 2)).send("to some");
    assert_eq!(one.next().await, sent("to some", &[], clients(&[1])));
    assert_eq!(two.next().await, sent("to some", &[], clients(&[1])));
    // Nobody knows a gateway 3.
    assert_eq!(worker.stats.failed_sends.get(), 1);
    assert_eq!(worker.stats.messages_out.get(), 3);

    // A gateway that lives and has no link is told as a failed send, too.
    two.end();
    eventually("the end of a link", || worker.stats.links.get() == 1).await;
    cluster.all().send("to all");
    assert_eq!(worker.stats.failed_sends.get(), 2);
}

#[tokio::test]
async fn one_client_can_be_told_all() {
    let (worker, _gateway, mut link) = Running::linked().await;
    eventually("the link", || worker.stats.links.get() == 1).await;
    let client = worker.cluster().client(id(1, 9));
    client.send(vec![1, 2]);
    client.join("g");
    client.leave("g");
    client.set("k", "v");
    client.close(4001, "ä".repeat(100));
    client.close(1006, "");
    worker.cluster().client(id(2, 9)).close(4000, "nobody");

    let Command::Send(send) = link.next().await else {
        panic!("a send comes first")
    };
    assert!(send.binary);
    assert_eq!((&send.payload[..], send.to), (&[1, 2][..], Some(clients(&[9]))));
    let group = || "g".to_owned();
    let (client, group_of) = (9, group());
    assert_eq!(
        link.next().await,
        Command::Join(wire::Join {
            client,
            group: group_of
        })
    );
    assert_eq!(
        link.next().await,
        Command::Leave(wire::Leave { client, group: group() })
    );
    let set = [("k".to_owned(), "v".to_owned())].into();
    let remove = Vec::new();
    assert_eq!(
        link.next().await,
        Command::Session(wire::SessionUpdate { client, set, remove })
    );
    // A reason is cut between two characters, and a code that nobody may send becomes 1000.
    for (code, reason) in [(4001, "ä".repeat(61)), (1000, String::new())] {
        assert_eq!(link.next().await, Command::Close(wire::Close { client, code, reason }));
    }
    assert_eq!(worker.stats.failed_sends.get(), 1);
}

#[test]
fn a_close_reason_reads_well() {
    let reason = |code, text: &str| CloseReason {
        cause: CloseCause::Kicked,
        code,
        text: text.into(),
    };
    assert_eq!(reason(Some(4001), "rude").to_string(), "kicked 4001: rude");
    assert_eq!(reason(None, "").to_string(), "kicked");
}
