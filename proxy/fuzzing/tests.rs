use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::sample::Choices;

/// What is under test, and on how many mutations of each seed.
struct Reader {
    folder: &'static str,
    read: fn(&[u8]),
    mutations: usize,
}

const READERS: &[Reader] = &[
    Reader { folder: "bridge", read: super::bridge, mutations: 40 },
    Reader { folder: "config", read: super::config, mutations: 4 },
    Reader { folder: "duplex", read: super::duplex, mutations: 40 },
    Reader { folder: "envelope", read: super::envelope, mutations: 40 },
    Reader { folder: "ladder", read: super::ladder, mutations: 40 },
    Reader { folder: "params", read: super::params, mutations: 40 },
    Reader { folder: "sse", read: super::sse, mutations: 40 },
    Reader { folder: "tagger", read: super::tagger, mutations: 40 },
    Reader { folder: "templates", read: super::templates, mutations: 40 },
];

fn corpus(folder: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(folder);
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn every_seed_keeps_the_invariants() {
    for Reader { folder, read, .. } in READERS {
        let seeds = corpus(folder);
        assert!(seeds.len() >= 20, "{folder} has too few seeds");
        for (path, seed) in seeds {
            eprintln!("{}", path.display());
            read(&seed);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_bytes_keep_the_invariants(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for reader in READERS {
            (reader.read)(&bytes);
        }
    }
}

#[test]
fn mutated_seeds_keep_the_invariants() {
    for Reader { folder, read, mutations } in READERS {
        let seeds = corpus(folder);
        for (path, seed) in &seeds {
            eprintln!("mutations of {}", path.display());
            let mut choices = Choices::seeded(seed.len());
            for _ in 0..*mutations {
                let (_, other) = &seeds[choices.pick(seeds.len())];
                read(&mutate(seed, other, &mut choices));
            }
        }
    }
}

/// Changes, drops, doubles and inserts a few bytes, and at times grafts the end of another seed on.
fn mutate(seed: &[u8], other: &[u8], choices: &mut Choices) -> Vec<u8> {
    const ODD: &[u8] = b"\"\\{}[]:,\r\n \0\xef\xff0-eu";
    let mut bytes = seed.to_vec();
    for _ in 0..=choices.pick(4) {
        let at = choices.pick(bytes.len() + 1);
        let end = (at + choices.pick(8)).min(bytes.len());
        match choices.pick(5) {
            0 => bytes.insert(at, ODD[choices.pick(ODD.len())]),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.extend_from_within(at..end),
            3 => bytes.splice(at..end, [ODD[choices.pick(ODD.len())]]).for_each(drop),
            _ => bytes.splice(at.., other[choices.pick(other.len())..].iter().copied()).for_each(drop),
        }
    }
    bytes
}
