//! Rules about the code itself: who may name what, and how large a file may be.

use std::path::{Path, PathBuf};

/// Source files with their text.
fn sources() -> Vec<(String, String)> {
    fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    assert!(files.len() > 30, "the sources were not found");
    let name = |path: &Path| {
        path.strip_prefix(&root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    files
        .iter()
        .map(|path| (name(path), std::fs::read_to_string(path).unwrap()))
        .collect()
}

/// Code without comments and test modules.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn a_foreign_crate_is_named_in_one_place() {
    for (needle, places) in [
        ("rocksdb::", &["store.rs", "store/"][..]),
        ("comfy_table::", &["cli/output"]),
        ("unicode_width::", &["cli/output/screen.rs"]),
        ("csv::", &["cli/output"]),
        ("flate2::", &["io/files.rs"]),
        ("zstd::", &["io/files.rs"]),
        ("signal_hook::", &["shutdown.rs"]),
        ("crossbeam_channel::", &["engine.rs", "engine/parser.rs"]),
        (
            "prefetch_index::",
            &[
                "batch/view.rs",
                "detect/",
                "store/recent.rs",
                "store/bulk/events.rs",
            ],
        ),
        ("simdutf8::", &["record/text.rs"]),
        (
            "postcard::",
            &["detect.rs", "detect/", "stage/incident.rs", "store/"],
        ),
        ("serde_bytes::", &["store/"]),
        ("jiff::", &["time.rs"]),
        (
            "tempfile::",
            &[
                "store/bulk/tests.rs",
                "store/scratch.rs",
                "store/state/tests.rs",
                "metrics/file.rs",
            ],
        ),
        ("prometheus::", &["metrics.rs", "metrics/"]),
        ("maxminddb::", &["enrich.rs"]),
        ("rdkafka::", &["io/kafka/"]),
        ("pollster::", &["io/kafka/"]),
        ("ureq::", &["io/http.rs"]),
        ("toml::", &["cli/settings/", "llm/price.rs", "mapping"]),
        ("strsim::", &["cli/settings/file.rs"]),
        ("regex::", &["mapping/"]),
        ("regex_syntax::", &["mapping/expression.rs"]),
        ("regex_automata::", &["mapping/expression.rs"]),
        ("clap_complete::", &["cli/manual.rs"]),
        ("clap_mangen::", &["cli/manual.rs"]),
        ("roff::", &["cli/manual.rs"]),
        ("hmac::", &["alerts/webhook.rs"]),
        ("aho_corasick::", &["llm/injection/rules.rs"]),
        ("unicode_normalization::", &["llm/injection/fold.rs"]),
        ("crc32fast::", &["query/similar/chunk.rs"]),
        ("indicatif::", &["progress.rs"]),
        ("crc32c::", &["store/backup.rs"]),
        ("axum::", &["serve.rs", "serve/"]),
        ("tokio::", &["serve.rs", "serve/"]),
        ("hyper::", &["serve/listen.rs"]),
        ("hyper_util::", &["serve/listen.rs"]),
        ("tokio_rustls::", &["serve.rs", "serve/listen.rs"]),
        ("tokio_io_timeout::", &["serve/listen.rs"]),
        ("governor::", &["serve/rate.rs"]),
        ("rust_embed::", &["serve/page.rs"]),
        ("subtle::", &["serve/keys.rs"]),
        ("percent_encoding::", &["serve/api/parameters.rs"]),
        ("utoipa_axum::", &["serve/api"]),
        ("utoipa_swagger_ui::", &["serve/document.rs"]),
    ] {
        for (name, text) in sources() {
            let is_allowed = places.iter().any(|place| name.starts_with(place));
            assert!(
                is_allowed || !code(&text).contains(needle),
                "{name} names {needle}"
            );
        }
    }
}

#[test]
fn dependencies_run_downward() {
    // A module may name itself and what stands before it.
    let layers = [
        "time", "shutdown", "progress", "generate", "record", "report", "metrics", "batch",
        "mapping", "schema", "embed", "enrich", "detect", "llm", "stage", "io", "engine",
        "evaluate", "store", "query", "alerts", "analyze", "serve", "cli",
    ];
    // Sources and sinks are the engine's traits, which files and pipes implement.
    let exceptions = [("io", "engine")];
    for (name, text) in sources() {
        let Some(module) = name.split(['/', '.']).next() else {
            continue;
        };
        let Some(rank) = layers.iter().position(|layer| *layer == module) else {
            continue;
        };
        for (other_rank, other) in layers.iter().enumerate() {
            let names = code(&text).contains(&format!("crate::{other}::"));
            let is_allowed = other_rank <= rank || exceptions.contains(&(module, *other));
            assert!(
                !names || is_allowed,
                "{name} names crate::{other}, which is above it"
            );
        }
    }
}

#[test]
fn files_and_programs_stay_small() {
    for (name, text) in sources() {
        let n_lines = code(&text).lines().count();
        let limit = if name.starts_with("bin/") { 40 } else { 500 };
        assert!(
            n_lines <= limit,
            "{name} has {n_lines} lines of code, more than {limit}"
        );
    }
}

#[test]
fn every_module_says_what_it_is_for() {
    for (name, text) in sources() {
        assert!(
            text.starts_with("//! "),
            "{name} opens without a word on its purpose"
        );
    }
}

/// Files of the page with their text.
fn page() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/serve/page");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect();
    files.sort();
    assert!(files.len() > 10, "the page was not found");
    files
}

/// What others have written must have no way to become markup, code or a request to elsewhere.
#[test]
fn the_page_takes_text_as_text() {
    for (name, text) in page() {
        for needle in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "setHTMLUnsafe",
            "document.write",
            "createContextualFragment",
            "DOMParser",
            "eval(",
            "new Function",
            "javascript:",
            " style=",
            " onclick=",
            "new EventSource",
            "WebSocket",
            "XMLHttpRequest",
            "sendBeacon",
        ] {
            assert!(!text.contains(needle), "{name} has {needle}");
        }
        // The names of SVG's elements are no address.
        let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
        assert!(
            !elsewhere.contains("://"),
            "{name} names a place that is not the server"
        );
    }
}

#[test]
fn files_of_the_page_stay_small_and_say_what_they_are_for() {
    for (name, text) in page() {
        let n_lines = text.lines().count();
        assert!(n_lines <= 500, "{name} has {n_lines} lines, more than 500");
        let opening = match name.rsplit('.').next().unwrap() {
            "js" => "// ",
            "css" => "/* ",
            _ => "<!doctype html>",
        };
        assert!(
            text.starts_with(opening),
            "{name} opens without a word on its purpose"
        );
    }
}
