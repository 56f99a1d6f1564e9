//! A brief run of the fuzz targets: good input and what becomes of it by changes that are the same each time.
//! `scripts/fuzz` runs them at length, guided by coverage; `SG_FUZZ_SEEDS=FOLDER` has the good input written there for it.

use std::collections::BTreeMap;
use std::path::Path;

use crate::tools::Numbers;

#[path = "../fuzz/targets.rs"]
#[expect(unreachable_pub, reason = "programs of their own use them, too")]
mod targets;

/// What makes parsers stumble.
const PIECES: [&[u8]; 24] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b"\\u",
    b"\\ud800",
    b":",
    b",",
    b"\n",
    b"\0",
    b"-",
    b"1e999",
    b"99999999999999999999",
    b"null",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xf0\x9f\x98\x80",
    b"\xe2\x80\xae",
    b"\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"%",
    b"9223372036854775807",
    b"2024-02-30T25:61:61Z",
];

fn change(bytes: &mut Vec<u8>, other: &[u8], numbers: &mut Numbers) {
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len() + 1);
        match numbers.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << numbers.below(8),
            1 if at < bytes.len() => bytes[at] = numbers.below(256) as u8,
            2 => bytes.truncate(at),
            3 => {
                let end = bytes.len().min(at + numbers.below(20));
                bytes.drain(at..end);
            }
            4 => {
                let from = numbers.below(other.len() + 1);
                let end = other.len().min(from + numbers.below(60));
                bytes.splice(at..at, other[from..end].iter().copied());
            }
            _ => {
                let piece = PIECES[numbers.below(PIECES.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
        }
    }
}

fn write(seeds: &BTreeMap<&str, Vec<Vec<u8>>>, folder: &Path) {
    for (name, seeds) in seeds {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for (i, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{i}")), seed).unwrap();
        }
    }
}

#[test]
fn changed_input_breaks_no_promise() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seeds: BTreeMap<&str, Vec<Vec<u8>>> = BTreeMap::new();
    for (name, seed) in targets::seeds(root) {
        seeds.entry(name).or_default().push(seed);
    }
    if let Some(folder) = std::env::var_os("SG_FUZZ_SEEDS") {
        return write(&seeds, Path::new(&folder));
    }
    for (name, target) in targets::TARGETS {
        let seeds = &seeds[name];
        let mut numbers = Numbers(1);
        for seed in seeds {
            target(seed);
        }
        // A mapping is compiled for each.
        let n_turns = if name == "mapping_document" {
            300
        } else {
            3_000
        };
        for _ in 0..n_turns {
            let mut bytes = seeds[numbers.below(seeds.len())].clone();
            bytes.truncate(20_000);
            change(&mut bytes, &seeds[numbers.below(seeds.len())], &mut numbers);
            let told = std::panic::catch_unwind(|| target(&bytes));
            assert!(told.is_ok(), "{name}: {}", String::from_utf8_lossy(&bytes));
        }
    }
}
