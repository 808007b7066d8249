//! Each step of a request, alone, at the sizes that matter for it.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use toolgate::benching::{World, parse, scan, splice, split};

const BODIES: [usize; 3] = [300, 4 << 10, 64 << 10];
const EVENTS: usize = 100;

fn request(bytes: usize) -> Vec<u8> {
    let head = r#"{"jsonrpc":"2.0","id":1000000001,"method":"tools/call","params":{"name":"b0__tool_0","arguments":{"query":""#;
    padded(head, "\"}}}", bytes)
}

fn answer(bytes: usize) -> Vec<u8> {
    padded(r#"{"jsonrpc":"2.0","id":1000000001,"result":{"content":[{"type":"text","text":""#, "\"}]}}", bytes)
}

fn padded(head: &str, tail: &str, bytes: usize) -> Vec<u8> {
    let fill = "x".repeat(bytes.saturating_sub(head.len() + tail.len()));
    [head, &fill, tail].concat().into_bytes()
}

fn bodies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("body");
    for bytes in BODIES {
        let (request, answer) = (request(bytes), answer(bytes));
        assert!(parse(&request) && scan(&answer) && splice(&request, "\"tool_0\"").is_some());
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("parse", bytes), |bencher| bencher.iter(|| parse(black_box(&request))));
        group.bench_function(BenchmarkId::new("splice", bytes), |bencher| {
            bencher.iter(|| splice(black_box(&request), "\"tool_0\""));
        });
        group.bench_function(BenchmarkId::new("scan", bytes), |bencher| bencher.iter(|| scan(black_box(&answer))));
    }
}

fn events(criterion: &mut Criterion) {
    let event = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t","progress":1}}"#;
    let event = Bytes::from(format!("event: message\ndata: {event}\n\n"));
    let whole = [Bytes::from(event.repeat(EVENTS))];
    let single = vec![event; EVENTS];
    let mut group = criterion.benchmark_group("events");
    group.throughput(Throughput::Elements(EVENTS as u64));
    for (name, chunks) in [("one chunk", &whole[..]), ("a chunk each", &single)] {
        assert!(split(chunks) > 0);
        group.bench_function(name, |bencher| bencher.iter(|| split(black_box(chunks))));
    }
}

fn catalog(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("catalog");
    for (backends, tools) in [(1, 10), (10, 1_000), (10, 10_000)] {
        let all = backends * tools;
        // The configuration and the lists are the bench's own.
        let world = World::new(backends, tools).expect("a gateway");
        let name = format!("b{}__tool_{}", backends - 1, tools / 2);
        assert!(world.look_up(&name) && world.admit(&name, 1));
        group.bench_function(BenchmarkId::new("look up", all), |bencher| {
            bencher.iter(|| world.look_up(black_box(&name)));
        });
        group.bench_function(BenchmarkId::new("look up and admit", all), |bencher| {
            bencher.iter(|| world.admit(black_box(&name), 1));
        });
        group.sample_size(10);
        group.bench_function(BenchmarkId::new("merge", all), |bencher| bencher.iter(|| world.merge()));
        group.sample_size(100);
    }
}

criterion_group!(steps, bodies, events, catalog);
criterion_main!(steps);
