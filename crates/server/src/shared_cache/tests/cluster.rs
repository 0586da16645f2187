//! The same on a cluster of three processes.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_means_the_same_on_a_cluster() {
    let cluster = RedisCluster::start(3).expect("a cluster starts");
    let mut pair = Pair::on(Servers::Cluster(cluster)).await;
    semantics::all(&mut pair).await;
    assert!(pair.one.health().await.expect("Redis answers").cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_takes_only_its_own_partitions_with_it() {
    let mut cluster = RedisCluster::start(3).expect("a cluster starts");
    // One URL is enough to find a cluster.
    let member = Member::open(SharedCacheSettings::new(&cluster.nodes()[0].url())).await;
    member.linked().await;
    let keys: Vec<SessionKey> = (0..120).map(|number| key(&format!("session {number}"))).collect();
    for key in &keys {
        member.settle(settle(key, 1)).await.expect("Redis answers");
    }
    let dying = 2;
    let on_it =
        |key: &SessionKey| cluster.nodes()[dying].command(&["EXISTS", &redis_key(key)]).is_ok_and(|found| found == "1");
    let (lost, kept): (Vec<SessionKey>, Vec<SessionKey>) = keys.iter().cloned().partition(on_it);
    assert!(!lost.is_empty() && !kept.is_empty());

    for (version, hangs) in [(1, true), (2, false)] {
        if hangs {
            cluster.nodes()[dying].pause().expect("it is stopped");
        } else {
            cluster.nodes_mut()[dying].kill().expect("it is killed");
        }
        let generations: Vec<u64> = kept.iter().map(|key| member.link(key).generation).collect();
        let begun = Instant::now();
        until("its partitions are given up", || lost.iter().all(|key| !member.is_available_for(key))).await;
        assert!(begun.elapsed() <= Duration::from_secs(3), "hangs: {hangs}, {:?}", begun.elapsed());
        assert!(member.is_available(), "the others are there");
        // Long enough for connections to be made anew, which must not disturb the others.
        let (watched, mut longest) = (Instant::now(), Duration::ZERO);
        while watched.elapsed() < Duration::from_secs(3) {
            for key in &kept {
                let begun = Instant::now();
                assert_eq!(member.session(key).await.version, version);
                longest = longest.max(begun.elapsed());
                assert!(member.link(key).up, "hangs: {hangs}, {key:?}");
            }
            for key in &lost {
                let begun = Instant::now();
                assert!(member.load(key).await.is_err());
                assert!(begun.elapsed() < Duration::from_millis(600), "hangs: {hangs}, {:?}", begun.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if hangs {
            let now: Vec<u64> = kept.iter().map(|key| member.link(key).generation).collect();
            assert_eq!(now, generations, "the others' links were not touched");
            cluster.nodes()[dying].resume().expect("it goes on");
        } else {
            cluster.nodes_mut()[dying].start_again().expect("it starts again");
        }
        until("its partitions are back", || lost.iter().all(|key| member.is_available_for(key))).await;
        member.linked().await;
        for key in &keys {
            member.settle(settle(key, version + 1)).await.expect("Redis answers");
        }
        cluster.wait_until_whole().expect("the cluster is whole");
    }
}
