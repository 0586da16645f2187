//! Each target over its kept inputs, and over a fixed number of changes to them.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::panic::catch_unwind;
use std::path::Path;

use throughline_fuzz::mutation::mutant;
use throughline_fuzz::{Outcome, Target, corpus, find, targets};

/// How many changed inputs each target gets; `THROUGHLINE_FUZZ_CHANGES` says otherwise.
const CHANGES: u64 = 1_500;

macro_rules! targets {
    ($($name:ident)*) => {
        const TESTED: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                over_all_inputs(stringify!($name));
            }
        )*
    };
}

targets! {
    client_address client_frame command funnel_file legacy_cookie legacy_entries legacy_storage origin server_frame
    service_configuration session_token stored_session
}

#[test]
fn every_target_is_tested_and_every_folder_of_inputs_has_a_target() {
    let all: BTreeSet<&str> = targets::ALL.iter().map(|target| target.name).collect();
    assert_eq!(all, TESTED.iter().copied().collect());
    let folders = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")).unwrap();
    let folders: BTreeSet<String> = folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(folders, all.iter().map(|name| (*name).to_owned()).collect());
}

#[test]
fn the_same_number_gives_the_same_change() {
    let inputs = vec![b"{\"type\":\"hello\"}".to_vec(), b"a = 1\nb = 2".to_vec()];
    let words = corpus::words(&inputs);
    let changed: BTreeSet<Vec<u8>> = (0..200).map(|seed| mutant(&inputs, &words, seed)).collect();
    assert!(changed.len() > 150, "only {} of 200 differ", changed.len());
    assert!((0..200).all(|seed| changed.contains(&mutant(&inputs, &words, seed))));
}

fn over_all_inputs(name: &str) {
    let target = find(name).unwrap();
    let kept = corpus::read(target).unwrap();
    let inputs: Vec<Vec<u8>> = kept.iter().map(|(_, bytes)| bytes.clone()).collect();
    let taken = inputs.iter().filter(|input| run(target, input) == Outcome::Taken).count();
    assert!(
        taken > 0,
        "no kept input of {name} is read: they are out of date, and what is behind the reader is not reached"
    );

    let words = corpus::words(&inputs);
    let changes = std::env::var("THROUGHLINE_FUZZ_CHANGES").map_or(CHANGES, |changes| changes.parse().unwrap());
    let outcomes: Vec<Outcome> = (0..changes).map(|seed| run(target, &mutant(&inputs, &words, seed))).collect();
    let taken = outcomes.iter().filter(|outcome| **outcome == Outcome::Taken).count();
    println!("{name}: {} kept inputs; of {changes} changed ones {taken} were taken", inputs.len());
    assert!(taken > 0 && taken < outcomes.len(), "of {} changed inputs {taken} were taken", outcomes.len());
}

/// Runs the target; where that fails the input is kept, and the message says how to see it again.
fn run(target: &Target, input: &[u8]) -> Outcome {
    catch_unwind(|| (target.run)(input)).unwrap_or_else(|_| {
        let mut hasher = DefaultHasher::new();
        input.hash(&mut hasher);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz").join(target.name);
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("{:016x}", hasher.finish()));
        fs::write(&file, input).unwrap();
        panic!(
            "{name} failed; see it again with\n  cargo run --package throughline-fuzz -- replay {name} {file}\n\
             then keep the input in crates/fuzz/corpus/{name}",
            name = target.name,
            file = file.display()
        );
    })
}
