//! What is in Redis but not ours, or damaged: never an error, never an outage.

use metrics_exporter_prometheus::PrometheusBuilder;

use super::*;

/// Damages one session of ours in a given way, and looks what becomes of it.
async fn damaged(pair: &Pair, id: &str, damage: impl Fn(&Redis, &str)) {
    let Servers::Alone(redis) = &pair.servers else { panic!("there is one Redis") };
    let key = key(id);
    for first_touch in ["load", "share", "settle"] {
        redis.command(&["DEL", &redis_key(&key)]).expect("Redis answers");
        pair.one.lay(&key, 3, &["four", "five"]).await;
        damage(redis, &redis_key(&key));
        match first_touch {
            "load" => {
                let loaded = pair.two.load(&key).await.expect("damage is no failure");
                assert!(matches!(loaded, Loaded::Nothing(_)), "{id}: {loaded:?}");
                let shared = pair.one.share(share(&key, 5, "six")).await.expect("damage is no failure");
                assert_eq!(shared, Shared::Missing, "{id}");
            }
            "share" => {
                // Damage within a blob is not seen by who does not read it.
                pair.two.share(share(&key, 5, "six")).await.expect("damage is no failure");
            }
            _ => {
                pair.two.settle(settle(&key, 5)).await.expect("damage is no failure");
                assert_eq!(pair.one.session(&key).await.snapshot, "state 5", "{id}: what is damaged is replaced");
            }
        }
    }
    assert!(pair.one.is_available() && pair.two.is_available());
}

#[tokio::test]
async fn a_damaged_or_foreign_entry_counts_as_nothing_and_is_replaced() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let log = Log::default();
    let _collecting = log.collect();
    let pair = Pair::alone().await;

    let set = |field: &'static str, value: &'static str| {
        move |redis: &Redis, key: &str| {
            redis.command(&["HSET", key, field, value]).expect("Redis answers");
        }
    };
    damaged(&pair, "another type", |redis, key| {
        redis.command(&["SET", key, "not ours"]).expect("Redis answers");
    })
    .await;
    damaged(&pair, "another kind of hash", |redis, key| {
        redis.command(&["DEL", key]).expect("Redis answers");
        redis.command(&["HSET", key, "name", "value"]).expect("Redis answers");
    })
    .await;
    damaged(&pair, "another format", set("f", "2")).await;
    damaged(&pair, "no number as version", set("v", "many")).await;
    damaged(&pair, "a version below the durable one", set("v", "1")).await;
    damaged(&pair, "no epoch", set("e", "")).await;
    damaged(&pair, "no tag", set("m", "")).await;
    damaged(&pair, "no snapshot", set("s", "")).await;
    damaged(&pair, "a foreign snapshot", set("s", "garbage, longer than a header")).await;
    damaged(&pair, "a foreign entry", set("t5", "garbage, longer than a header")).await;
    damaged(&pair, "a version that the blobs are not of", set("d", "4")).await;
    for lost in ["t4", "t5"] {
        damaged(&pair, lost, |redis, key| {
            redis.command(&["HDEL", key, lost]).expect("Redis answers");
        })
        .await;
    }

    let told = log.lines_with("damaged or not ours");
    for kind in ["foreign", "snapshot", "tail_entry"] {
        let quoted = format!("kind=\"{kind}\"");
        // Two caches, which each tell once.
        let lines = told.iter().filter(|line| line.contains(&quoted)).count();
        assert!((1..=2).contains(&lines), "{kind}: {told:#?}");
        let counted = format!("throughline_cache_corrupt_total{{kind=\"{kind}\"}}");
        assert!(metrics.render().contains(&counted), "{}", metrics.render());
    }
    assert!(told.iter().all(|line| line.contains("partition=") && !line.contains("shop")), "{told:#?}");
}

#[tokio::test]
async fn what_else_stands_where_our_keys_belong_is_replaced() {
    let pair = Pair::alone().await;
    let key = key("surrounded");
    let names = super::super::Names::new("throughline");
    let partition = Partition::of(&key);
    let (unflushed, sequence) = (names.unflushed(partition), names.sequence(partition));
    pair.servers.command(&["SET", &unflushed, "not ours"]);
    pair.servers.command(&["SET", &sequence, "not ours"]);
    pair.one.lay(&key, 1, &["two"]).await;
    let taken = pair.two.take_abandoned(Duration::ZERO, LONG, 10).await.expect("no failure");
    assert_eq!(taken, std::slice::from_ref(&key));

    pair.servers.command(&["DEL", &sequence]);
    pair.servers.command(&["HSET", &sequence, "i", "1", "n", "not a number"]);
    let generation = pair.two.link(&key).generation;
    pair.one.share(share(&key, 2, "three")).await.expect("no failure");
    until("the counter's new life is seen", || pair.two.link(&key).generation > generation && pair.two.link(&key).up)
        .await;

    pair.servers.command(&["ZADD", &unflushed, "1", "no separator"]);
    pair.servers.command(&["SET", &format!("{}no separator", names.sessions_of(partition)), "x"]);
    pair.two.take_abandoned(Duration::ZERO, LONG, 10).await.expect("no failure");
    assert!(pair.one.is_available() && pair.two.is_available());
}

#[tokio::test]
async fn foreign_messages_change_nothing() {
    let mut pair = Pair::alone().await;
    let key = key("disturbed");
    let channel = super::super::Names::new("throughline").channel(Partition::of(&key));
    let link = pair.two.link(&key);
    for garbage in ["", "garbage", "TL1 1 2 3\n", "TL1 1 2\nx"] {
        pair.servers.command(&["SPUBLISH", &channel, garbage]);
    }
    pair.one.publish(&key, b"ours").await.expect("Redis answers");
    assert_eq!(pair.two.message().await, (key.clone(), Bytes::from_static(b"ours")));
    assert_eq!(pair.two.link(&key), link);
}
