//! Redis away, hanging, and back: bounded waits, a breaker, and recovery by itself.

use throughline_test_services::redis::RedisOptions;
use throughline_test_services::tcp_proxy::TcpProxy;

use super::*;

/// The time limit of one call, with what a busy machine adds.
const ONE_CALL: Duration = Duration::from_millis(250 + 350);

async fn member(redis: &Redis) -> Member {
    Member::open(SharedCacheSettings::new(&redis.url())).await
}

fn connections(redis: &Redis) -> usize {
    redis.command(&["CLIENT", "LIST"]).expect("Redis answers").lines().count()
}

/// Settles until it works.
async fn works_again(member: &Member) {
    let deadline = Instant::now() + LONG;
    while member.settle(settle(&key("afterwards"), 1)).await.is_err() {
        assert!(Instant::now() < deadline, "calls never worked again");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hang_opens_the_breaker_within_a_second_and_it_closes_afterwards() {
    let redis = Redis::start().expect("Redis starts");
    let member = member(&redis).await;
    works_again(&member).await;
    member.linked().await;
    let before = connections(&redis);
    for round in 0..2 {
        redis.pause().expect("it is stopped");
        let stopped = Instant::now();
        let callers: Vec<_> = (0..50)
            .map(|number| {
                let cache = Arc::clone(&member.cache);
                tokio::spawn(async move {
                    let key = key(&format!("caller {number}"));
                    let (mut calls, mut longest) = (0_u64, Duration::ZERO);
                    while cache.is_available() {
                        let begun = Instant::now();
                        assert!(cache.load(&key).await.is_err());
                        longest = longest.max(begun.elapsed());
                        calls += 1;
                    }
                    (calls, longest)
                })
            })
            .collect();
        until("the breaker is open", || !member.is_available()).await;
        assert!(stopped.elapsed() <= Duration::from_secs(1), "round {round}: {:?}", stopped.elapsed());
        for caller in callers {
            let (calls, longest) = caller.await.expect("no caller panics");
            assert!(longest <= ONE_CALL, "a call took {longest:?}");
            assert!(calls <= 5, "{calls} calls waited");
        }
        let begun = Instant::now();
        assert!(matches!(member.load(&key("any")).await, Err(CacheFault::Away)));
        assert!(begun.elapsed() < Duration::from_millis(50), "an open breaker does not wait");

        redis.resume().expect("it goes on");
        let resumed = Instant::now();
        until("the breaker is closed", || member.is_available()).await;
        assert!(resumed.elapsed() <= Duration::from_secs(5), "round {round}: {:?}", resumed.elapsed());
        works_again(&member).await;
        member.linked().await;
    }
    until("connections that hung are gone", || connections(&redis) <= before).await;
}

#[tokio::test]
async fn a_hang_is_noticed_without_any_caller() {
    let redis = Redis::start().expect("Redis starts");
    let member = member(&redis).await;
    member.linked().await;
    let log = Log::default();
    let _collecting = log.collect();
    let mut away = member.watch_away();
    redis.pause().expect("it is stopped");
    tokio::time::timeout(LONG, away.wait_for(|away| *away)).await.expect("in time").expect("it is there");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    redis.resume().expect("it goes on");
    tokio::time::timeout(LONG, away.wait_for(|away| !*away)).await.expect("in time").expect("it is there");
    assert_eq!(log.lines_with("does not work").len(), 1, "told once");
    assert_eq!(log.lines_with("works again").len(), 1, "told once");
}

#[tokio::test]
async fn redis_may_be_away_at_the_start_and_come_later() {
    let mut redis = Redis::start().expect("Redis starts");
    redis.kill().expect("it is killed");
    let begun = Instant::now();
    let member = member(&redis).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(!member.is_available());
    assert!(matches!(member.load(&key("any")).await, Err(CacheFault::Away)));
    assert!(member.health().await.is_err());
    redis.start_again().expect("it starts again");
    until("it is available", || member.is_available()).await;
    member.linked().await;
    works_again(&member).await;
}

#[tokio::test]
async fn a_kill_is_survived_and_what_was_lost_is_missing() {
    let mut redis = Redis::start().expect("Redis starts");
    let member = member(&redis).await;
    let key = key("lost");
    member.settle(settle(&key, 3)).await.expect("Redis answers");
    redis.kill().expect("it is killed");
    until("calls fail", || !member.is_available()).await;
    redis.start_again().expect("it starts again");
    works_again(&member).await;
    assert_eq!(member.share(share(&key, 3, "four")).await.expect("Redis answers"), Shared::Missing);
    member.lay(&key, 3, &["four"]).await;
}

#[tokio::test]
async fn a_call_that_took_too_long_spoils_nothing_for_the_next() {
    let redis = Redis::start().expect("Redis starts");
    let proxy = TcpProxy::to(redis.address()).expect("a proxy");
    let member = Member::open(SharedCacheSettings::new(&redis.url_through(proxy.address()))).await;
    works_again(&member).await;
    member.linked().await;
    for version in 1..=10_u64 {
        let key = key(&format!("session {version}"));
        let vacancy = member.vacancy(&key).await;
        assert!(member.fill(&vacancy, EPOCH, mark(version), b"state").await.expect("Redis answers"));
    }
    proxy.freeze();
    let begun = Instant::now();
    let fault = member.load(&key("session 1")).await.expect_err("nothing passes");
    assert!(matches!(fault, CacheFault::TimedOut { .. }), "{fault:?}");
    assert!(begun.elapsed() <= ONE_CALL, "{:?}", begun.elapsed());
    proxy.thaw();
    works_again(&member).await;
    // Late answers must not be taken for those of other calls.
    for version in 1..=10_u64 {
        assert_eq!(member.session(&key(&format!("session {version}"))).await.version, version);
    }
}

#[tokio::test]
async fn more_calls_than_allowed_fail_at_once() {
    let redis = Redis::start().expect("Redis starts");
    let settings = SharedCacheSettings { concurrent_operations: 4, ..SharedCacheSettings::new(&redis.url()) };
    let member = Member::open(settings).await;
    works_again(&member).await;
    let (one, two) = (key("one"), key("two"));
    let calls = (0..10).map(|_| member.load(&one));
    let outcomes = futures_util::future::join_all(calls).await;
    let overloaded = outcomes.iter().filter(|end| matches!(end, Err(CacheFault::Overloaded { calls: 4 }))).count();
    assert!(overloaded >= 6, "{outcomes:?}");
    assert!(member.is_available(), "that is no failure of Redis");
    // Heartbeats take places too, for a moment.
    let deadline = Instant::now() + LONG;
    while member.load(&two).await.is_err() {
        assert!(Instant::now() < deadline, "places were never given back");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_dropped_call_gives_its_place_back() {
    let redis = Redis::start().expect("Redis starts");
    let settings =
        SharedCacheSettings { concurrent_operations: PARTITIONS + 1, ..SharedCacheSettings::new(&redis.url()) };
    let member = Member::open(settings).await;
    works_again(&member).await;
    for number in 0..200 {
        let key = key(&format!("dropped {number}"));
        let mut call = Box::pin(member.load(&key));
        assert!(futures_util::poll!(&mut call).is_pending());
    }
    works_again(&member).await;
}

#[tokio::test]
async fn a_wrong_password_is_an_outage_that_tells_no_secret() {
    let redis = RedisOptions::default().password("right").start().expect("Redis starts");
    let log = Log::default();
    let _collecting = log.collect();
    let url = format!("redis://:hunter2@{}", redis.address());
    let member = Member::open(SharedCacheSettings::new(&url)).await;
    assert!(!member.is_available());
    let told = log.lines_with("does not work");
    assert!(
        told.len() == 1 && told[0].contains("--redis-url") && told[0].contains("invalid username-password"),
        "{told:?}"
    );
    assert_eq!(log.lines_with("hunter2"), Vec::<String>::new());
    assert!(!format!("{:?}", member.cache).contains("hunter2"));

    let member = Member::open(SharedCacheSettings::new(&redis.url())).await;
    works_again(&member).await;
}

#[tokio::test]
async fn several_urls_of_a_redis_that_is_no_cluster_are_explained() {
    let redis = Redis::start().expect("Redis starts");
    let log = Log::default();
    let _collecting = log.collect();
    let member = Member::open(SharedCacheSettings::new(&format!("{0},{0}", redis.url()))).await;
    assert!(!member.is_available());
    let told = log.lines_with("does not work");
    assert!(!told.is_empty() && told.iter().all(|line| line.contains("not one; give one URL")), "{told:?}");
}

#[tokio::test]
async fn tls_works_for_those_who_trust_the_authority_and_for_no_one_else() {
    let redis = Redis::start_with_tls().expect("Redis starts");
    let url = redis.tls_url().expect("it listens with TLS");
    let trusting =
        Member::open(SharedCacheSettings { ca_file: Some(redis.ca_file()), ..SharedCacheSettings::new(&url) }).await;
    works_again(&trusting).await;
    trusting.linked().await;

    let log = Log::default();
    let _collecting = log.collect();
    let other = Member::open(SharedCacheSettings::new(&url)).await;
    assert!(!other.is_available());
    let told = log.lines_with("does not work");
    assert!(told.len() == 1 && told[0].contains("certificate"), "{told:?}");
}

#[tokio::test]
async fn health_tells_what_an_operator_must_know() {
    let redis = RedisOptions::default()
        .append_only(true)
        .setting("maxmemory-policy", "volatile-lru")
        .start()
        .expect("Redis starts");
    let member = member(&redis).await;
    member.linked().await;
    let health = member.health().await.expect("Redis answers");
    assert!(health.version.starts_with(|digit: char| digit.is_ascii_digit()), "{health:?}");
    assert_eq!((health.cluster, health.role.as_str(), health.append_only_file), (false, "master", true));
    assert_eq!(health.maxmemory_policy, "volatile-lru");
    assert_eq!((health.partitions_away, health.partitions_linked), (0, PARTITIONS));
}

#[tokio::test]
async fn a_closed_tier_refuses_calls_and_lets_go_of_redis() {
    let redis = Redis::start().expect("Redis starts");
    let alone = connections(&redis);
    let member = member(&redis).await;
    member.linked().await;
    assert!(connections(&redis) > alone);
    member.close();
    assert!(matches!(member.load(&key("any")).await, Err(CacheFault::Closed)));
    until("its connections are gone", || connections(&redis) == alone).await;
}

#[tokio::test]
async fn a_dropped_tier_lets_go_of_redis_too() {
    let redis = Redis::start().expect("Redis starts");
    let alone = connections(&redis);
    let Member { cache, mut events } = member(&redis).await;
    drop(cache);
    until("its connections are gone", || connections(&redis) == alone).await;
    while tokio::time::timeout(LONG, events.recv()).await.expect("the events end").is_some() {}
}
