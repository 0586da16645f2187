//! A thousand lives without a broken promise, and every planted mistake found within a thousand.

use throughline_simulation::{Life, Plant, live, live_recreated, lost_without_browsers};

const SEEDS: u64 = 1000;

fn expect_unbroken(kind: &str, live: impl Fn(u64) -> Life, seeds: u64) {
    let (mut acknowledged, mut forks) = (0, 0);
    for seed in 0..seeds {
        let life = live(seed);
        if let Some(problem) = life.broken {
            panic!("seed {seed}: {problem}\nrun it again: cargo xtask sim --{kind} --seed {seed}");
        }
        acknowledged += life.acknowledged;
        forks += life.forks;
    }
    println!("{seeds} lives, {acknowledged} changes acknowledged, {forks} decided again after a fork");
    assert!(acknowledged > 0);
}

#[test]
fn asvs_15_4_1_nothing_that_was_confirmed_is_lost_or_doubled() {
    expect_unbroken("usual", |seed| live(seed, Plant::Nothing), SEEDS);
}

#[test]
fn a_session_that_was_created_anew_is_not_mixed_with_the_former_one() {
    expect_unbroken("recreated", |seed| live_recreated(seed, Plant::Nothing), SEEDS / 2);
}

#[test]
fn the_same_seed_gives_the_same_life() {
    for seed in 0..20 {
        assert_eq!(live(seed, Plant::Nothing), live(seed, Plant::Nothing), "seed {seed}");
    }
    assert_ne!(live(1, Plant::Nothing).trace, live(2, Plant::Nothing).trace);
}

#[test]
fn forks_happen_in_these_lives() {
    let lives = (0..200).filter(|seed| live(*seed, Plant::Nothing).forks > 0).count();
    assert!(lives >= 5, "{lives} of 200");
}

#[test]
fn what_was_accepted_survives_any_single_failure_without_its_browser() {
    for seed in 0..300 {
        assert_eq!(lost_without_browsers(seed, true, false), 0, "seed {seed}: a server crashed");
        assert_eq!(lost_without_browsers(seed, false, true), 0, "seed {seed}: the shared tier lost everything");
    }
    // Only the browsers are left then; without them this has to show.
    assert!((0..300).any(|seed| lost_without_browsers(seed, true, true) > 0));
}

fn expect_found(plant: Plant) {
    let found = (0..SEEDS).find_map(|seed| {
        let life = match plant {
            Plant::IgnoreEpoch => live_recreated(seed, plant),
            _ => live(seed, plant),
        };
        life.broken.map(|problem| (seed, problem))
    });
    let (seed, problem) = found.unwrap_or_else(|| panic!("{SEEDS} seeds did not find {plant:?}"));
    println!("{plant:?} is found by seed {seed}: {problem}");
}

macro_rules! found {
    ($($name:ident: $plant:ident),+ $(,)?) => {
        $(
            #[test]
            fn $name() {
                expect_found(Plant::$plant);
            }
        )+

        #[test]
        fn every_planted_mistake_has_its_test() {
            assert_eq!(Plant::ALL.to_vec(), [$(Plant::$plant),+]);
        }
    };
}

found! {
    it_is_found_when_a_browser_forgets_what_was_accepted: ForgetWhenAccepted,
    it_is_found_when_a_page_does_not_rebase: SkipRebase,
    it_is_found_when_a_browser_ignores_the_epoch: IgnoreEpoch,
    it_is_found_when_tabs_ignore_the_lock: IgnoreLock,
    it_is_found_when_tabs_keep_their_client_ids: KeepClientIds,
    it_is_found_when_the_database_does_not_compare_versions: WriteWithoutComparing,
    it_is_found_when_a_server_forgets_the_numbers: ForgetNumbers,
    it_is_found_when_a_server_forgets_its_forks: ForgetForks,
    it_is_found_when_the_shared_tier_does_not_compare_histories: ShareWithoutComparing,
}
