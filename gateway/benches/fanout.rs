//! One message to all members of a group, up to where the system would take the bytes.

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use meepo_gateway::bench::Group;

fn fanout(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fan-out");
    let payload = Bytes::from_static(&[b'x'; 64]);
    for (members, samples) in [(10, 100), (1_000, 100), (100_000, 10)] {
        group.throughput(Throughput::Elements(members)).sample_size(samples);
        group.bench_function(BenchmarkId::from_parameter(members), |bencher| {
            // Nothing is taken from the members' queues, so each publish needs new ones.
            bencher.iter_batched_ref(
                || Group::new(members),
                |room| room.publish(payload.clone()),
                BatchSize::PerIteration,
            );
        });
    }
}

criterion_group!(benches, fanout);
criterion_main!(benches);
