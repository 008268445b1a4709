//! What goes over a link: events and commands, to bytes and back.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use meepo_proto::link::{Command, Delivery, Done, Event, Message, Send, command, event, send};

fn event(size: usize) -> Event {
    let payload = Bytes::from(vec![b'x'; size]);
    Event {
        delivery: Some(Delivery {
            seq: 1_000_000,
            event_number: 100,
            redelivered: false,
        }),
        subject: Some(event::Subject::Client(10_000)),
        body: Some(event::Body::Message(Message { payload, binary: false })),
        ..Event::default()
    }
}

fn send(size: usize) -> Command {
    let body = command::Body::Send(Send {
        payload: Bytes::from(vec![b'x'; size]),
        binary: false,
        to: Some(send::To::Client(10_000)),
    });
    Command { body: Some(body) }
}

fn both<M: prost::Message + Default>(criterion: &mut Criterion, name: &str, message: &M) {
    let size = message.encoded_len();
    let bytes = Bytes::from(message.encode_to_vec());
    let mut encode = criterion.benchmark_group("link encode");
    encode.throughput(Throughput::Bytes(size as u64));
    let mut out = BytesMut::with_capacity(size);
    encode.bench_function(BenchmarkId::from_parameter(name), |bencher| {
        bencher.iter(|| {
            out.clear();
            black_box(message).encode(&mut out).expect("there is room");
            out.len()
        });
    });
    encode.finish();
    let mut decode = criterion.benchmark_group("link decode");
    decode.throughput(Throughput::Bytes(size as u64));
    decode.bench_function(BenchmarkId::from_parameter(name), |bencher| {
        bencher.iter(|| M::decode(black_box(&bytes).clone()).expect("it was encoded"));
    });
}

fn link(criterion: &mut Criterion) {
    for size in [64, 1 << 20] {
        both(criterion, &format!("event, {size} B"), &event(size));
        both(criterion, &format!("send, {size} B"), &send(size));
    }
    let done = Done {
        seq: (1_000_000..1_000_016).collect(),
    };
    let body = command::Body::Done(done);
    both(criterion, "done, 16 events", &Command { body: Some(body) });
}

criterion_group!(benches, link);
criterion_main!(benches);
