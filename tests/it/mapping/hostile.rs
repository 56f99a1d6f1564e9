//! Records that are damaged in all ways: whatever they are, each is an event that is valid or a reject, and neither
//! depends on the records beside it.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::Index;
use streamguard::batch::Block;
use streamguard::mapping::{AUTO, Mapping, MappingConfig};
use streamguard::record::LINE_BYTES_MAX;

static MAPPING: LazyLock<Mapping> = LazyLock::new(|| {
    Mapping::new(MappingConfig {
        format: Some(AUTO.to_owned()),
        latest_ms: Some(1_772_323_200_000),
        ..MappingConfig::default()
    })
    .unwrap()
});

static LINES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/mapping");
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let samples = paths.iter().filter(|path| {
        path.extension()
            .is_some_and(|it| it == "jsonl" || it == "log")
    });
    let lines = samples.flat_map(|path| {
        let bytes = fs::read(path).unwrap();
        bytes
            .split(|byte| *byte == b'\n')
            .map(<[u8]>::to_vec)
            .collect::<Vec<_>>()
    });
    lines.filter(|line| !line.is_empty()).collect()
});

/// What is done to a line.
#[derive(Clone, Debug)]
enum Damage {
    Set(Index, u8),
    Cut(Index, usize),
    Repeat(Index, usize),
    Insert(Index, &'static str),
}

fn damage() -> impl Strategy<Value = Damage> {
    const PIECES: [&str; 19] = [
        "null",
        "{}",
        "[]",
        "\"\"",
        "\\u0000",
        "\\ud800",
        "1e999",
        "-",
        "\u{202e}",
        "{\"a\":",
        "]}",
        "true",
        "99999999999999999999",
        "340282366920938465199064208",
        "\"user\":",
        "\\\\",
        "@",
        " 10:00:00 ",
        "::ffff:1.2.3.4:5",
    ];
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        (any::<Index>(), 1..40_usize).prop_map(|(at, n)| Damage::Cut(at, n)),
        (any::<Index>(), 1..80_usize).prop_map(|(at, n)| Damage::Repeat(at, n)),
        (any::<Index>(), prop::sample::select(&PIECES[..]))
            .prop_map(|(at, piece)| Damage::Insert(at, piece)),
    ]
}

fn apply(line: &mut Vec<u8>, damage: &Damage) {
    if line.is_empty() {
        return;
    }
    match damage {
        Damage::Set(at, byte) => {
            let at = at.index(line.len());
            line[at] = *byte;
        }
        Damage::Cut(at, n) => {
            let at = at.index(line.len());
            line.drain(at..(at + n).min(line.len()));
        }
        Damage::Repeat(at, n) => {
            let at = at.index(line.len());
            let piece = line[at..(at + n).min(line.len())].to_vec();
            line.splice(at..at, piece);
        }
        Damage::Insert(at, piece) => {
            let at = at.index(line.len());
            line.splice(at..at, piece.bytes());
        }
    }
    line.retain(|byte| *byte != b'\n');
}

/// What becomes of lines: for each what it is, and the text of it.
fn mapped(lines: &[Vec<u8>]) -> Vec<(u32, String, Vec<u8>)> {
    let mut block = Block::new();
    for line in lines {
        block.lines.extend_from_slice(line);
        block.lines.push(b'\n');
    }
    let ahead = MAPPING.look_ahead(std::slice::from_ref(&block));
    MAPPING.parse(&mut block, &ahead[0], LINE_BYTES_MAX);
    let n_all = block.events.len() + block.rejects.len();
    assert_eq!(block.n_lines, n_all as u64 + block.n_blank);
    let mut found = Vec::new();
    for event in &block.events {
        let line = block.bytes(event.line);
        // It says of itself what it is when it is read again.
        let mut again = Block::new();
        again.lines = [line, b"\n"].concat();
        again.parse(usize::MAX);
        let shown = |block: &Block, i: usize| {
            format!(
                "{:?} {:?}",
                block.view(&block.events[i]),
                block.events[i].status
            )
        };
        assert_eq!(
            again.events.len(),
            1,
            "{}: {:?}",
            String::from_utf8_lossy(line),
            again.rejects
        );
        let at = block
            .events
            .iter()
            .position(|other| other.line == event.line)
            .unwrap();
        assert_eq!(shown(&block, at), shown(&again, 0));
        assert_eq!(
            again.events[0].close as usize,
            event.close as usize - event.line.start()
        );
        found.push((event.line_index, "event".to_owned(), line.to_vec()));
    }
    for reject in &block.rejects {
        let reason = format!("{:?}", reject.reason);
        found.push((reject.line_index, reason, block.bytes(reject.line).to_vec()));
    }
    found.sort();
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_records_are_events_or_rejects(
        chosen in prop::collection::vec((any::<Index>(), prop::collection::vec(damage(), 0..4)), 1..12),
    ) {
        let lines: Vec<Vec<u8>> = chosen
            .iter()
            .map(|(line, damages)| {
                let mut line = LINES[line.index(LINES.len())].clone();
                for damage in damages {
                    apply(&mut line, damage);
                }
                line
            })
            .collect();
        let together = mapped(&lines);
        // Ids that are made of where a record stands differ; and tables are told by lines before.
        if lines.iter().any(|line| line.starts_with(b"#")) {
            return Ok(());
        }
        let without_id = |line: &[u8]| {
            let text = String::from_utf8_lossy(line);
            match text.strip_prefix("{\"event_id\":\"sg-") {
                Some(rest) => rest.get(32..).unwrap_or_default().to_owned(),
                None => text.into_owned(),
            }
        };
        let mut alone = Vec::new();
        for line in &lines {
            let before = alone.len();
            alone.extend(mapped(std::slice::from_ref(line)).into_iter().map(|(_, what, line)| (what, without_id(&line))));
            prop_assert!(alone.len() >= before);
        }
        let together: Vec<_> = together.into_iter().map(|(_, what, line)| (what, without_id(&line))).collect();
        prop_assert_eq!(together, alone);
    }
}
