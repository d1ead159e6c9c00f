//! Every input that fuzzing started from or found, once more.

#[path = "../../fuzz/src/lib.rs"]
#[allow(unreachable_pub)]
mod fuzz;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("the folder belongs to the project");
    entries
        .map(|entry| {
            entry.expect("it can be listed").path().file_stem().expect("it has a name").to_string_lossy().into_owned()
        })
        .collect()
}

#[test]
fn every_target_has_its_program_and_its_corpus() {
    let targets: BTreeSet<_> = fuzz::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&folder("corpus")), targets);
    assert_eq!(names(&folder("fuzz_targets")), targets);
}

#[test]
fn every_input_keeps_the_promises() {
    for (name, check) in fuzz::TARGETS {
        let folder = folder("corpus").join(name);
        let mut count = 0;
        for entry in fs::read_dir(&folder).expect("every target has a corpus") {
            let path = entry.expect("it can be listed").path();
            let input = fs::read(&path).expect("it can be read");
            if let Err(panic) = std::panic::catch_unwind(|| check(&input)) {
                eprintln!("{}", path.display());
                std::panic::resume_unwind(panic);
            }
            count += 1;
        }
        assert!(count > 0, "{} is empty", folder.display());
    }
}
