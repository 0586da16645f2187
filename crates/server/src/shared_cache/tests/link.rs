//! The link: nothing is missed without being noticed.

use throughline_test_services::tcp_proxy::TcpProxy;

use super::*;
use crate::shared_cache::{Link, SILENCE};

/// The next events that are about one partition's link.
async fn changes(member: &mut Member, partition: Partition, count: usize) -> Vec<&'static str> {
    let mut changes = Vec::new();
    while changes.len() < count {
        let event = tokio::time::timeout(LONG, member.events.recv()).await.expect("an event arrives in time");
        match event.expect("the cache is there") {
            CacheEvent::Interrupted { partition: which } if which == partition => changes.push("interrupted"),
            CacheEvent::Restored { partition: which } if which == partition => changes.push("restored"),
            _ => {}
        }
    }
    changes
}

async fn back_in_a_later_generation(member: &Member, before: &[Link]) {
    until("all links are up again, in a later generation", || {
        Partition::all().zip(before).all(|(partition, before)| {
            member.link_of(partition).up && member.link_of(partition).generation > before.generation
        })
    })
    .await;
}

fn links(member: &Member) -> Vec<Link> {
    Partition::all().map(|partition| member.link_of(partition)).collect()
}

async fn alone(settings: impl FnOnce(&mut SharedCacheSettings)) -> (Redis, Member) {
    let redis = Redis::start().expect("Redis starts");
    let mut chosen = SharedCacheSettings::new(&redis.url());
    settings(&mut chosen);
    let member = Member::open(chosen).await;
    member.linked().await;
    (redis, member)
}

#[tokio::test]
async fn a_link_stays_up_while_nothing_is_said() {
    let (_redis, mut member) = alone(|_| {}).await;
    let partition = Partition::of(&key("any"));
    assert_eq!(changes(&mut member, partition, 1).await, ["restored"]);
    let before = links(&member);
    tokio::time::sleep(SILENCE * 2).await;
    assert_eq!(links(&member), before, "heartbeats keep it up");
}

#[tokio::test]
async fn a_lost_message_is_noticed_though_the_socket_looks_fine() {
    let mut pair = Pair::alone().await;
    let key = key("lost");
    let partition = Partition::of(&key);
    assert_eq!(changes(&mut pair.two, partition, 1).await, ["restored"]);
    let before = links(&pair.two);
    // As if Redis had sent a message that never arrived.
    pair.servers.command(&["HINCRBY", &super::super::Names::new("throughline").sequence(partition), "n", "1"]);
    pair.one.publish(&key, b"the next").await.expect("Redis answers");
    assert_eq!(changes(&mut pair.two, partition, 2).await, ["interrupted", "restored"]);
    assert_eq!(pair.two.message().await.1, "the next");
    for (which, before) in Partition::all().zip(before) {
        let grown = u64::from(which == partition);
        assert_eq!(pair.two.link_of(which), Link { up: true, generation: before.generation + grown }, "{which}");
    }
}

#[tokio::test]
async fn a_hang_interrupts_within_a_second_and_heals() {
    let (redis, mut member) = alone(|_| {}).await;
    let partition = Partition::of(&key("any"));
    let before = links(&member);
    redis.pause().expect("it is stopped");
    let stopped = Instant::now();
    until("no link is up", || links(&member).iter().all(|link| !link.up)).await;
    assert!(stopped.elapsed() <= SILENCE + Duration::from_millis(400), "{:?}", stopped.elapsed());
    assert_eq!(changes(&mut member, partition, 2).await, ["restored", "interrupted"], "told while it hangs");
    redis.resume().expect("it goes on");
    let resumed = Instant::now();
    back_in_a_later_generation(&member, &before).await;
    assert!(resumed.elapsed() <= Duration::from_secs(5), "{:?}", resumed.elapsed());
    assert_eq!(changes(&mut member, partition, 1).await, ["restored"]);
}

#[tokio::test]
async fn a_kill_or_the_loss_of_all_data_interrupts_and_heals() {
    let (mut redis, member) = alone(|_| {}).await;
    let before = links(&member);
    redis.command(&["FLUSHALL"]).expect("Redis answers");
    back_in_a_later_generation(&member, &before).await;

    let before = links(&member);
    redis.kill().expect("it is killed");
    until("no link is up", || links(&member).iter().all(|link| !link.up)).await;
    redis.start_again().expect("it starts again");
    back_in_a_later_generation(&member, &before).await;
}

#[tokio::test]
async fn what_is_said_while_the_network_is_cut_is_not_missed_in_silence() {
    let (redis, talker) = alone(|_| {}).await;
    let proxy = TcpProxy::to(redis.address()).expect("a proxy");
    let mut listener = Member::open(SharedCacheSettings::new(&redis.url_through(proxy.address()))).await;
    listener.linked().await;
    let key = key("cut");
    talker.publish(&key, b"before").await.expect("Redis answers");
    assert_eq!(listener.message().await.1, "before");

    let before = links(&listener);
    proxy.cut();
    talker.publish(&key, b"meanwhile").await.expect("Redis answers");
    proxy.heal();
    back_in_a_later_generation(&listener, &before).await;
    talker.publish(&key, b"after").await.expect("Redis answers");
    let changes = changes(&mut listener, Partition::of(&key), 2).await;
    assert_eq!(changes, ["interrupted", "restored"], "before anything that was said later");
    assert_eq!(listener.message().await.1, "after");

    // Packets that vanish: the socket does not notice.
    let before = links(&listener);
    proxy.freeze();
    until("no link is up", || links(&listener).iter().all(|link| !link.up)).await;
    proxy.cut();
    proxy.heal();
    back_in_a_later_generation(&listener, &before).await;
}

#[tokio::test]
async fn a_receiver_that_is_too_slow_is_interrupted_and_memory_stays_bounded() {
    let (_redis, talker) = alone(|_| {}).await;
    let settings = SharedCacheSettings { event_queue: PARTITIONS + 10, ..SharedCacheSettings::new(&_redis.url()) };
    let mut slow = Member::open(settings).await;
    slow.linked().await;
    let key = key("flood");
    let before = slow.link(&key);
    for number in 0..200_u32 {
        talker.publish(&key, &number.to_le_bytes()).await.expect("Redis answers");
    }
    until("the link is interrupted", || slow.link(&key).generation > before.generation).await;
    assert!(!slow.link(&key).up, "the receiver could not be told yet");
    assert!(slow.events.len() <= PARTITIONS + 10);

    // What is in the queue is without a gap, and the interruption comes before anything later.
    let (mut expected, mut interrupted, mut asked) = (0_u32, false, false);
    loop {
        if !asked && slow.events.is_empty() {
            asked = true;
            until("the link is up", || slow.link(&key).up).await;
            talker.publish(&key, b"last").await.expect("Redis answers");
        }
        match tokio::time::timeout(LONG, slow.events.recv()).await.expect("an event arrives").expect("it is there") {
            CacheEvent::Message { payload, .. } if payload == "last" => break,
            CacheEvent::Message { payload, .. } => {
                assert!(interrupted || payload == expected.to_le_bytes().as_slice(), "message {expected} is missing");
                expected += 1;
            }
            CacheEvent::Interrupted { partition } => interrupted |= partition == Partition::of(&key),
            CacheEvent::Restored { .. } => {}
        }
    }
    assert!(interrupted && expected >= 10, "{expected}");
}

#[tokio::test]
async fn other_prefixes_are_other_worlds() {
    let (redis, mut ours) = alone(|_| {}).await;
    let settings = SharedCacheSettings { prefix: "other".to_owned(), ..SharedCacheSettings::new(&redis.url()) };
    let other = Member::open(settings).await;
    let key = key("same name");
    other.settle(settle(&key, 1)).await.expect("Redis answers");
    assert!(matches!(ours.load(&key).await.expect("Redis answers"), Loaded::Nothing(_)));
    while let Ok(event) = ours.events.try_recv() {
        assert!(!matches!(event, CacheEvent::Message { .. }), "{event:?}");
    }
}
