//! WebSocket frames of clients: input to messages, and messages to output.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use meepo_gateway::bench::{Decoder, encode};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

const SIZES: [usize; 3] = [64, 4 << 10, 1 << 20];
/// What a read gives at once.
const READ: usize = 16 << 10;

/// A client's frame. Its mask changes nothing, and is applied all the same.
fn frame(size: usize) -> Vec<u8> {
    let header = FrameHeader {
        opcode: OpCode::Data(Data::Text),
        mask: Some([0; 4]),
        ..FrameHeader::default()
    };
    let mut bytes = Vec::new();
    header
        .format(size as u64, &mut bytes)
        .expect("a vector takes all that is written");
    bytes.resize(bytes.len() + size, b'x');
    bytes
}

fn decoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame decode");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(BenchmarkId::from_parameter(size), &frame(size), |bencher, frame| {
            let mut decoder = Decoder::new(16 << 20);
            bencher.iter(|| -> usize { frame.chunks(READ).map(|piece| decoder.decode(black_box(piece))).sum() });
        });
    }
}

fn encoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame encode");
    for size in SIZES {
        let payload = Bytes::from(vec![b'x'; size]);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(BenchmarkId::from_parameter(size), &payload, |bencher, payload| {
            bencher.iter(|| encode(black_box(payload).clone()));
        });
    }
}

criterion_group!(benches, decoding, encoding);
criterion_main!(benches);
