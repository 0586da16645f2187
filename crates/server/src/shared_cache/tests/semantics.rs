//! What the calls mean: the same on one Redis and on a cluster.

use super::*;
use crate::shared_cache::Outdated;

/// Makes a test with a Redis of its own from each check, and one function that runs all.
macro_rules! checks {
    ($($name:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                checks::$name(&mut Pair::alone().await).await;
            }
        )*

        pub(super) async fn all(pair: &mut Pair) {
            $( checks::$name(pair).await; )*
        }
    };
}

checks!(
    what_redis_lost_is_missing_until_the_database_has_it,
    a_change_on_another_state_of_the_same_version_is_a_conflict,
    settling_trims_the_tail_and_never_goes_back,
    a_tail_keeps_an_entry_from_expiring,
    of_two_changes_to_one_version_exactly_one_is_taken,
    another_history_is_a_conflict_and_the_database_decides,
    a_tail_that_does_not_reach_is_replaced,
    a_slow_fill_never_overwrites,
    a_floor_refuses_what_is_older,
    a_fill_that_began_before_redis_lost_its_data_is_refused,
    a_tail_that_is_outdated_is_left_alone,
    the_same_change_again_is_taken_once,
    an_abandoned_tail_is_given_to_one_caller,
    a_removed_session_leaves_no_bytes_and_does_not_come_back,
    messages_arrive_in_order_at_the_others,
    written_before_and_after_the_link_came_up,
    calls_that_make_no_sense_are_refused,
);

#[allow(clippy::module_inception)]
mod checks {
    use super::*;

    pub(super) async fn what_redis_lost_is_missing_until_the_database_has_it(pair: &mut Pair) {
        let key = key("lost");
        assert_eq!(pair.one.share(share(&key, 2, "three")).await.expect("Redis answers"), Shared::Missing);
        assert!(matches!(pair.two.load(&key).await.expect("Redis answers"), Loaded::Nothing(_)));
        pair.one.lay(&key, 2, &["three"]).await;
        let longer = Share { reached: mark(6), ..share(&key, 3, "four to six") };
        assert_eq!(pair.two.share(longer).await.expect("Redis answers"), Shared::Taken);
        let session = pair.one.session(&key).await;
        assert_eq!((session.epoch, session.version, session.durable_version), (EPOCH, 6, 2));
        assert_eq!(session.snapshot, "state 2");
        assert_eq!(tail(&session), [(3, "three"), (6, "four to six")]);
        // Redis has less than the change builds on: it was lost, and filled from the database.
        assert_eq!(pair.one.share(share(&key, 9, "ten")).await.expect("Redis answers"), Shared::Missing);
        pair.servers.flush_all();
        assert_eq!(pair.one.share(share(&key, 6, "seven")).await.expect("Redis answers"), Shared::Missing);
    }

    pub(super) async fn a_change_on_another_state_of_the_same_version_is_a_conflict(pair: &mut Pair) {
        let key = key("two of one version");
        pair.one.lay(&key, 3, &["four", "five"]).await;
        let other = |version| StateMark { version, tag: 7 };
        let forked = Share { expected: other(5), ..share(&key, 5, "six") };
        let conflict = Shared::Conflict { version: 5 };
        assert_eq!(pair.two.share(forked).await.expect("Redis answers"), conflict);
        // The database has another version 4: what was accepted on ours is not history.
        let decided = Settle { reached: other(4), ..settle(&key, 4) };
        assert_eq!(pair.two.settle(decided).await.expect("Redis answers"), Settled::Taken);
        let session = pair.one.session(&key).await;
        assert_eq!((session.version, session.durable_version, session.tail.len()), (4, 4, 0));
        assert_eq!(
            pair.one.share(share(&key, 4, "five")).await.expect("Redis answers"),
            Shared::Conflict { version: 4 }
        );
        let fitting = Share { expected: other(4), ..share(&key, 4, "five") };
        assert_eq!(pair.one.share(fitting).await.expect("Redis answers"), Shared::Taken);
    }

    pub(super) async fn settling_trims_the_tail_and_never_goes_back(pair: &mut Pair) {
        let key = key("settled");
        pair.one.lay(&key, 3, &["four", "five", "six"]).await;
        assert_eq!(pair.two.settle(settle(&key, 5)).await.expect("Redis answers"), Settled::Taken);
        let session = pair.one.session(&key).await;
        assert_eq!((session.version, session.durable_version), (6, 5));
        assert_eq!(session.snapshot, "state 5");
        assert_eq!(tail(&session), [(6, "six")]);
        let fields = pair.servers.command(&["HKEYS", &redis_key(&key)]);
        assert!(!fields.contains("t4") && !fields.contains("t5"), "what was settled takes no memory: {fields}");

        let outdated = Settled::Outdated { version: 5 };
        assert_eq!(pair.two.settle(settle(&key, 4)).await.expect("Redis answers"), outdated);
        assert_eq!(pair.one.session(&key).await, session);

        assert_eq!(pair.two.settle(settle(&key, 6)).await.expect("Redis answers"), Settled::Taken);
        let session = pair.one.session(&key).await;
        assert_eq!((session.version, session.durable_version, session.tail.len()), (6, 6, 0));
        // The version is the same, but nobody may have been told of it yet.
        assert_eq!(pair.two.settle(settle(&key, 6)).await.expect("Redis answers"), Settled::Taken);
    }

    pub(super) async fn a_tail_keeps_an_entry_from_expiring(pair: &mut Pair) {
        let key = key("lasting");
        let lifetime = || pair.servers.command(&["TTL", &redis_key(&key)]).parse::<i64>().expect("a number");
        pair.one.settle(settle(&key, 1)).await.expect("Redis answers");
        assert!((3590..=3600).contains(&lifetime()));
        pair.one.share(share(&key, 1, "two")).await.expect("Redis answers");
        pair.one.share(share(&key, 2, "three")).await.expect("Redis answers");
        assert_eq!(lifetime(), -1);
        pair.one.settle(settle(&key, 2)).await.expect("Redis answers");
        assert_eq!(lifetime(), -1, "some of the tail is left");
        pair.one.settle(settle(&key, 3)).await.expect("Redis answers");
        assert!((3590..=3600).contains(&lifetime()));
        pair.one.outdated(&key, 4).await.expect("Redis answers");
        assert!((50..=60).contains(&lifetime()), "a floor stays for a minute");
    }

    pub(super) async fn of_two_changes_to_one_version_exactly_one_is_taken(pair: &mut Pair) {
        let key = key("contested");
        pair.one.settle(settle(&key, 1)).await.expect("Redis answers");
        let mut expected = mark(1);
        for version in 1..30 {
            let reached = [mark(version + 1), StateMark { version: version + 1, tag: version }];
            let change =
                |which: usize, entry| Share { expected, reached: reached[which], ..share(&key, version, entry) };
            let (one, two) = tokio::join!(pair.one.share(change(0, "of one")), pair.two.share(change(1, "of two")));
            let outcomes = [one.expect("Redis answers"), two.expect("Redis answers")];
            let conflict = Shared::Conflict { version: version + 1 };
            let (winner, entry, told) = if outcomes[0] == Shared::Taken {
                (0, "of one", [Shared::Taken, conflict])
            } else {
                (1, "of two", [conflict, Shared::Taken])
            };
            assert_eq!(outcomes, told);
            expected = reached[winner];
            assert_eq!(tail(&pair.one.session(&key).await).last(), Some(&(version + 1, entry)));
        }
    }

    pub(super) async fn another_history_is_a_conflict_and_the_database_decides(pair: &mut Pair) {
        let key = key("forked");
        // Another number, but the same one as a floating point number.
        let other = EPOCH - 1;
        pair.one.lay(&key, 3, &["four"]).await;
        let forked = Share { epoch: other, ..share(&key, 4, "five") };
        let conflict = Shared::Conflict { version: 4 };
        assert_eq!(pair.two.share(forked).await.expect("Redis answers"), conflict);
        let decided = Settle { epoch: other, ..settle(&key, 2) };
        assert_eq!(pair.two.settle(decided).await.expect("Redis answers"), Settled::Taken);
        let session = pair.one.session(&key).await;
        assert_eq!((session.epoch, session.version, session.durable_version), (other, 2, 2));
        assert_eq!(session.tail, []);
    }

    pub(super) async fn a_tail_that_does_not_reach_is_replaced(pair: &mut Pair) {
        let key = key("overtaken");
        pair.one.lay(&key, 3, &["four"]).await;
        assert_eq!(pair.two.settle(settle(&key, 8)).await.expect("Redis answers"), Settled::Taken);
        let session = pair.one.session(&key).await;
        assert_eq!((session.version, session.durable_version), (8, 8));
        assert_eq!(session.tail, []);
        let abandoned = pair.two.take_abandoned(Duration::ZERO, LONG, 1000).await.expect("Redis answers");
        assert!(!abandoned.contains(&key));
    }

    pub(super) async fn a_slow_fill_never_overwrites(pair: &mut Pair) {
        let key = key("filled");
        let vacancy = pair.one.vacancy(&key).await;
        assert!(pair.one.fill(&vacancy, EPOCH, mark(3), b"state 3").await.expect("Redis answers"));
        assert_eq!(pair.two.session(&key).await.snapshot, "state 3");
        assert!(!pair.two.fill(&vacancy, EPOCH, mark(3), b"again").await.expect("Redis answers"), "it is there");

        pair.two.settle(settle(&key, 5)).await.expect("Redis answers");
        assert!(!pair.one.fill(&vacancy, EPOCH, mark(4), b"state 4").await.expect("Redis answers"));
        pair.two.share(share(&key, 5, "six")).await.expect("Redis answers");
        assert!(!pair.one.fill(&vacancy, EPOCH, mark(5), b"state 5").await.expect("Redis answers"), "a tail is on top");
        assert!(
            !pair.one.fill(&vacancy, EPOCH - 1, mark(9), b"state 9").await.expect("Redis answers"),
            "another history"
        );
        let session = pair.one.session(&key).await;
        assert_eq!((session.version, session.snapshot.as_ref()), (6, &b"state 5"[..]));
        assert!(pair.one.fill(&vacancy, EPOCH, mark(9), b"state 9").await.expect("Redis answers"), "newer than all");
        assert_eq!(pair.one.session(&key).await.tail, []);
    }

    pub(super) async fn a_floor_refuses_what_is_older(pair: &mut Pair) {
        let key = key("floored");
        let vacancy = pair.one.vacancy(&key).await;
        assert_eq!(pair.two.outdated(&key, 7).await.expect("Redis answers"), Outdated::Dropped);
        assert!(!pair.one.fill(&vacancy, EPOCH, mark(6), b"state 6").await.expect("Redis answers"));
        assert_eq!(pair.two.outdated(&key, 5).await.expect("Redis answers"), Outdated::Dropped);
        let loaded = pair.one.load(&key).await.expect("Redis answers");
        assert!(matches!(loaded, Loaded::Floor { version: 7, .. }), "a floor does not sink: {loaded:?}");
        let outdated = Settled::Outdated { version: 7 };
        assert_eq!(pair.one.settle(settle(&key, 6)).await.expect("Redis answers"), outdated);
        assert_eq!(pair.one.share(share(&key, 7, "eight")).await.expect("Redis answers"), Shared::Missing);
        assert!(pair.one.fill(&vacancy, EPOCH, mark(7), b"state 7").await.expect("Redis answers"));
        assert_eq!(pair.two.outdated(&key, 7).await.expect("Redis answers"), Outdated::Current);
        assert_eq!(pair.two.outdated(&key, 8).await.expect("Redis answers"), Outdated::Dropped);
        assert!(!pair.one.fill(&vacancy, EPOCH, mark(7), b"state 7").await.expect("Redis answers"));
        assert_eq!(pair.one.settle(settle(&key, 8)).await.expect("Redis answers"), Settled::Taken);
    }

    pub(super) async fn a_fill_that_began_before_redis_lost_its_data_is_refused(pair: &mut Pair) {
        let key = key("late");
        let vacancy = pair.one.vacancy(&key).await;
        pair.two.outdated(&key, 7).await.expect("Redis answers");
        // The floor is gone, and with it the knowledge that the database has version 7.
        pair.servers.flush_all();
        assert!(!pair.one.fill(&vacancy, EPOCH, mark(6), b"state 6").await.expect("Redis answers"));
        pair.two.publish(&key, b"the counter begins a new life").await.expect("Redis answers");
        assert!(!pair.one.fill(&vacancy, EPOCH, mark(6), b"state 6").await.expect("Redis answers"));
        let vacancy = pair.one.vacancy(&key).await;
        assert!(pair.one.fill(&vacancy, EPOCH, mark(7), b"state 7").await.expect("Redis answers"));
    }

    pub(super) async fn a_tail_that_is_outdated_is_left_alone(pair: &mut Pair) {
        let key = key("tailed");
        pair.one.lay(&key, 3, &["four", "five"]).await;
        let session = pair.one.session(&key).await;
        let expected = Outdated::Tail { version: 5, durable_version: 3 };
        assert_eq!(pair.two.outdated(&key, 9).await.expect("Redis answers"), expected);
        assert_eq!(pair.one.session(&key).await, session);
    }

    pub(super) async fn the_same_change_again_is_taken_once(pair: &mut Pair) {
        let key = key("again");
        pair.one.lay(&key, 1, &["two"]).await;
        for _ in 0..2 {
            let outcome = pair.one.share(share(&key, 2, "three")).await.expect("Redis answers");
            assert_eq!(outcome, Shared::Taken);
        }
        assert_eq!(tail(&pair.one.session(&key).await), [(2, "two"), (3, "three")]);
        pair.one.publish(&key, b"last").await.expect("Redis answers");
        let mut told = Vec::new();
        while told.last().is_none_or(|payload| payload != "last") {
            let (about, payload) = pair.two.message().await;
            told.extend((about == key).then_some(payload));
        }
        assert_eq!(told, ["settled 1", "shared on 1", "shared on 2", "last"]);
    }

    pub(super) async fn an_abandoned_tail_is_given_to_one_caller(pair: &mut Pair) {
        pair.servers.flush_all();
        let mut expected: Vec<SessionKey> = (0..40).map(|number| key(&format!("abandoned {number}"))).collect();
        expected.sort();
        for key in &expected {
            pair.one.lay(key, 1, &["two"]).await;
        }
        let hour = Duration::from_secs(3600);
        let none = pair.one.take_abandoned(hour, hour, 100).await.expect("Redis answers");
        assert_eq!(none, [], "nobody had an hour yet");

        let some = pair.one.take_abandoned(Duration::ZERO, Duration::from_millis(1), 10).await.expect("Redis answers");
        assert_eq!(some.len(), 10, "as many as there may be, wherever they are");
        tokio::time::sleep(Duration::from_millis(5)).await;
        let (one, two) = tokio::join!(
            pair.one.take_abandoned(Duration::ZERO, hour, 1000),
            pair.two.take_abandoned(Duration::ZERO, hour, 1000)
        );
        let mut taken = [one.expect("Redis answers"), two.expect("Redis answers")].concat();
        taken.sort();
        assert_eq!(taken, expected, "each once, and those whose short lease is over again");
        let none = pair.two.take_abandoned(Duration::ZERO, hour, 1000).await.expect("Redis answers");
        assert_eq!(none, [], "their leases last");

        pair.servers.flush_all();
        let (settled, evicted, kept) = (key("settled in time"), key("evicted"), key("kept"));
        for key in [&settled, &evicted, &kept] {
            pair.one.lay(key, 1, &["two", "three"]).await;
        }
        pair.two.settle(settle(&settled, 3)).await.expect("Redis answers");
        pair.servers.command(&["DEL", &redis_key(&evicted)]);
        let taken = pair.two.take_abandoned(Duration::ZERO, hour, 1000).await.expect("Redis answers");
        assert_eq!(taken, [kept]);
    }

    pub(super) async fn a_removed_session_leaves_no_bytes_and_does_not_come_back(pair: &mut Pair) {
        let key = key("removed");
        let vacancy = pair.two.vacancy(&key).await;
        pair.one.lay(&key, 3, &["secret"]).await;
        pair.one.remove(&key, 4).await.expect("Redis answers");
        let left = pair.servers.command(&["HGETALL", &redis_key(&key)]);
        assert_eq!(left, "f\n1\nfloor\n4");
        assert!(!pair.two.fill(&vacancy, EPOCH, mark(3), b"state 3").await.expect("Redis answers"));
        let again = pair.two.settle(settle(&key, 3)).await.expect("Redis answers");
        assert_eq!(again, Settled::Outdated { version: 4 });
        let taken = pair.two.take_abandoned(Duration::ZERO, LONG, 1000).await.expect("Redis answers");
        assert!(!taken.contains(&key));
        assert!(pair.two.fill(&vacancy, EPOCH, mark(4), b"erased").await.expect("Redis answers"));
    }

    pub(super) async fn messages_arrive_in_order_at_the_others(pair: &mut Pair) {
        let key = key("talkative");
        let mut expected = Vec::new();
        pair.one.settle(settle(&key, 1)).await.expect("Redis answers");
        expected.push("settled 1".to_owned());
        for version in 1..100 {
            pair.one.share(share(&key, version, "next")).await.expect("Redis answers");
            expected.push(format!("shared on {version}"));
        }
        pair.two.publish(&key, b"from two").await.expect("Redis answers");
        for payload in &expected {
            loop {
                let (about, received) = pair.two.message().await;
                if about == key {
                    assert_eq!(received, payload.as_bytes());
                    break;
                }
            }
        }
        loop {
            let (about, received) = pair.one.message().await;
            assert!(about != key || received == "from two", "no one hears itself");
            if about == key {
                break;
            }
        }
    }

    pub(super) async fn written_before_and_after_the_link_came_up(pair: &mut Pair) {
        let (before, after) = (key("written before"), key("written after"));
        pair.flush_all().await;
        pair.one.settle(settle(&before, 1)).await.expect("Redis answers");
        let settings = SharedCacheSettings { operation_limit: LONG, ..SharedCacheSettings::new(&pair.servers.url()) };
        let late = Member::open(settings).await;
        late.linked().await;
        pair.one.settle(settle(&after, 1)).await.expect("Redis answers");
        assert!(!late.session(&before).await.written_after_link_up);
        assert!(late.session(&after).await.written_after_link_up);
        assert!(pair.one.session(&before).await.written_after_link_up);
    }

    pub(super) async fn calls_that_make_no_sense_are_refused(pair: &mut Pair) {
        let key = key("senseless");
        let refused = |outcome: Result<_, CacheFault>| matches!(outcome, Err(CacheFault::Malformed { .. }));
        let backwards = Share { reached: mark(1), ..share(&key, 1, "x") };
        assert!(refused(pair.one.share(backwards).await.map(drop)));
        assert!(refused(pair.one.share(share(&key, 1 << 53, "x")).await.map(drop)));
        assert!(refused(pair.one.settle(settle(&key, 1 << 53)).await.map(drop)));
        assert!(pair.one.is_available(), "a mistake of ours is no failure of Redis");
    }
}
