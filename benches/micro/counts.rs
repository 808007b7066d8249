//! How many instructions each step of a request takes, alone.

mod inputs;

use std::hint::black_box;

use bytes::Bytes;
use gungraun::{library_benchmark, library_benchmark_group, main};
use toolgate::benching::{World, parse, scan, splice, split};

use inputs::{BODIES, CATALOGS, OWN_JSON, answer, chunk_each, one_chunk, request, world};

#[library_benchmark]
#[bench::b300(request(BODIES[0]))]
#[bench::kb4(request(BODIES[1]))]
#[bench::kb64(request(BODIES[2]))]
fn parse_body(body: Vec<u8>) -> bool {
    parse(black_box(&body))
}

#[library_benchmark]
#[bench::b300(request(BODIES[0]))]
#[bench::kb4(request(BODIES[1]))]
#[bench::kb64(request(BODIES[2]))]
fn splice_body(body: Vec<u8>) -> Option<Bytes> {
    splice(black_box(&body), OWN_JSON)
}

#[library_benchmark]
#[bench::b300(answer(BODIES[0]))]
#[bench::kb4(answer(BODIES[1]))]
#[bench::kb64(answer(BODIES[2]))]
fn scan_answer(body: Vec<u8>) -> bool {
    scan(black_box(&body))
}

#[library_benchmark]
#[bench::one_chunk(one_chunk())]
#[bench::chunk_each(chunk_each())]
fn split_events(chunks: Vec<Bytes>) -> usize {
    split(black_box(&chunks))
}

/// Called once already: what the first call makes besides is not counted.
fn warm(size: (usize, usize)) -> (World, String) {
    let (world, name) = world(size);
    assert!(world.look_up(&name) && world.admit(&name, 1));
    (world, name)
}

#[library_benchmark]
#[bench::tools_10(warm(CATALOGS[0]))]
#[bench::tools_10_000(warm(CATALOGS[1]))]
#[bench::tools_100_000(warm(CATALOGS[2]))]
fn look_up(world: (World, String)) -> (bool, World) {
    (world.0.look_up(black_box(&world.1)), world.0)
}

#[library_benchmark]
#[bench::tools_10(warm(CATALOGS[0]))]
#[bench::tools_10_000(warm(CATALOGS[1]))]
#[bench::tools_100_000(warm(CATALOGS[2]))]
fn look_up_and_admit(world: (World, String)) -> (bool, World) {
    (world.0.admit(black_box(&world.1), 1), world.0)
}

#[library_benchmark]
#[bench::tools_10(warm(CATALOGS[0]))]
#[bench::tools_10_000(warm(CATALOGS[1]))]
#[bench::tools_100_000(warm(CATALOGS[2]))]
fn merge(world: (World, String)) -> World {
    world.0.merge();
    world.0
}

library_benchmark_group!(
    name = steps,
    benchmarks = [parse_body, splice_body, scan_answer, split_events, look_up, look_up_and_admit, merge]
);
main!(library_benchmark_groups = steps);
