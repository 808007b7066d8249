//! How long each step of a request takes, alone.

mod inputs;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use toolgate::benching::{parse, scan, splice, split};

use inputs::{BODIES, CATALOGS, EVENTS, OWN_JSON, answer, chunk_each, one_chunk, request, world};

fn bodies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("body");
    for bytes in BODIES {
        let (request, answer) = (request(bytes), answer(bytes));
        assert!(parse(&request) && scan(&answer) && splice(&request, OWN_JSON).is_some());
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("parse", bytes), |bencher| bencher.iter(|| parse(black_box(&request))));
        group.bench_function(BenchmarkId::new("splice", bytes), |bencher| {
            bencher.iter(|| splice(black_box(&request), OWN_JSON));
        });
        group.bench_function(BenchmarkId::new("scan", bytes), |bencher| bencher.iter(|| scan(black_box(&answer))));
    }
}

fn events(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("events");
    group.throughput(Throughput::Elements(EVENTS as u64));
    for (name, chunks) in [("one chunk", one_chunk()), ("a chunk each", chunk_each())] {
        assert!(split(&chunks) > 0);
        group.bench_function(name, |bencher| bencher.iter(|| split(black_box(&chunks))));
    }
}

fn catalog(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("catalog");
    for size in CATALOGS {
        let all = size.0 * size.1;
        let (world, name) = world(size);
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
