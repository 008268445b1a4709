//! An event through the router: pushed, delivered, done.

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use meepo_gateway::router::{Bounds, LinkId, Output, Router};
use meepo_proto::id::ClientNumber;
use meepo_proto::link::event::Body;
use meepo_proto::link::{Message, Opened};

const LINK: LinkId = LinkId(1);

fn bounds() -> Bounds {
    Bounds {
        client_in_flight: 64,
        link_in_flight_bytes: 16 << 20,
        client_waiting_bytes: 1 << 20,
        waiting_bytes: 64 << 20,
        max_deliveries: 3,
        max_returns: 12,
    }
}

/// Says that all that was delivered is done.
fn finish(router: &mut Router, out: &mut Vec<Output>) -> usize {
    let mut delivered = 0;
    for output in std::mem::take(out) {
        if let Output::Deliver { seq, .. } = output {
            router.done(LINK, seq, out);
            delivered += 1;
        }
    }
    delivered
}

fn push_and_done(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("router push and done");
    let payload = Bytes::from_static(&[b'x'; 64]);
    for clients in [100_u64, 10_000] {
        let (mut router, mut out) = (Router::new(bounds()), Vec::new());
        router.link_up(LINK, &mut out);
        for client in 1..=clients {
            router.push(ClientNumber(client), Body::Opened(Opened {}), &mut out);
        }
        finish(&mut router, &mut out);
        group.throughput(Throughput::Elements(100));
        group.bench_function(BenchmarkId::from_parameter(clients), |bencher| {
            let mut turns = (1..=clients).cycle();
            // 100 events in flight at a time, each of another client.
            bencher.iter(|| {
                for client in turns.by_ref().take(100) {
                    let payload = payload.clone();
                    let body = Body::Message(Message { payload, binary: false });
                    router.push(ClientNumber(client), body, &mut out);
                }
                finish(&mut router, &mut out)
            });
        });
    }
}

criterion_group!(benches, push_and_done);
criterion_main!(benches);
