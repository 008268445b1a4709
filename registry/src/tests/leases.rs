//! Leases that nodes ask registries for.

use meepo_proto::registry::{HoldReply, HoldRequest, ReleaseRequest};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::harness::*;
use crate::store::LEASE_TIME;

async fn hold(server: &Server, name: &str, holder: u64, term: Option<u64>) -> Result<HoldReply, Status> {
    let request = HoldRequest {
        name: name.into(),
        holder,
        term,
    };
    Ok(server.client().await.hold(request).await?.into_inner())
}

#[tokio::test]
async fn a_lease_moves_from_one_holder_to_the_next_and_terms_grow() {
    let servers = [
        Server::start(brisk(), "").await,
        Server::start(brisk(), "").await,
        Server::start(brisk(), "").await,
    ];
    let addresses = servers.each_ref().map(|server| server.address.to_string());
    let membership = membership(&addresses, "");
    let stop = CancellationToken::new();
    let acquire = async || {
        let held = timeout(DEADLINE, membership.acquire("clock", &stop)).await;
        held.unwrap().unwrap()
    };
    let mut last = 0;
    for _ in 0..3 {
        let held = acquire().await;
        let lease = held.lease().clone();
        assert!(lease.is_held() && lease.term() > last);
        last = lease.term();
        // Another name can be held at the same time.
        let other = timeout(DEADLINE, membership.acquire("other", &stop))
            .await
            .unwrap()
            .unwrap();
        assert!(other.lease().is_held());
        other.release().await;
        // No other holder gets this name as long as the lease is kept.
        let second = timeout(LEASE_TIME / 2, membership.acquire("clock", &stop)).await;
        assert!(second.is_err() && lease.is_held());
        held.release().await;
        assert!(!lease.is_held());
        timeout(DEADLINE, lease.lost()).await.unwrap();
        // The name is free at once, at all registries.
        for server in &servers {
            assert!(hold(server, "clock", 77, None).await.unwrap().grant.is_some());
            let request = ReleaseRequest {
                name: "clock".into(),
                holder: 77,
            };
            server.client().await.release(request).await.unwrap();
        }
    }
    // The token ends the wait for a lease.
    let _held = acquire().await;
    let waiting = tokio::spawn({
        let (membership, stop) = (membership.clone(), stop.clone());
        async move { membership.acquire("clock", &stop).await }
    });
    sleep(LEASE_TIME / 10).await;
    stop.cancel();
    assert!(timeout(DEADLINE, waiting).await.unwrap().unwrap().is_none());
}

#[tokio::test]
async fn a_holder_that_loses_the_registries_stops_before_its_time() {
    let server = Server::start(brisk(), "").await;
    let membership = membership(&[server.address.to_string()], "");
    let stop = CancellationToken::new();
    let held = timeout(DEADLINE, membership.acquire("clock", &stop))
        .await
        .unwrap()
        .unwrap();
    let lease = held.lease().clone();
    let address = server.kill();
    timeout(DEADLINE, lease.lost()).await.unwrap();
    assert!(!lease.is_held());
    // The registry restarts and knows nothing: for a while it grants the lease to no holder.
    let server = Server::start_at(address, brisk(), "").await;
    assert!(hold(&server, "clock", 77, None).await.unwrap().grant.is_none());
    let again = timeout(DEADLINE, membership.acquire("clock", &stop))
        .await
        .unwrap()
        .unwrap();
    assert!(again.lease().term() > lease.term());
}

#[tokio::test]
async fn requests_that_are_not_valid_are_refused() {
    let server = Server::start(brisk(), "secret").await;
    assert_eq!(
        hold(&server, "a", 1, None).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    let server = Server::start(brisk(), "").await;
    let long = "x".repeat(129);
    for (name, holder, term) in [
        ("", 1, None),
        (&*long, 1, None),
        ("a", 0, None),
        ("a", 1, Some(1 << 63)),
    ] {
        let error = hold(&server, name, holder, term).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{name:?}");
    }
    let request = ReleaseRequest { name: long, holder: 1 };
    let error = server.client().await.release(request).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(hold(&server, &"x".repeat(128), 1, None).await.is_ok());
}
