//! Writes the seeds of each target to a folder of its name: `seeds PROJECT CORPORA`.

use std::path::PathBuf;

#[path = "targets.rs"]
#[expect(dead_code, reason = "the targets themselves are other programs")]
mod targets;

fn main() {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (root, corpora) = (args.next().expect("PROJECT"), args.next().expect("CORPORA"));
    for (i, (name, seed)) in targets::seeds(&root).iter().enumerate() {
        let folder = corpora.join(name);
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        std::fs::write(folder.join(format!("seed-{i}")), seed).expect("a seed can be written");
    }
}
