//! Several servers on one PostgreSQL and one Redis: what they promise while these, or they themselves, fail.

use std::cell::Cell;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use throughline_test_services::buyer::{Buyer, Identity};
use throughline_test_services::chaos::{self, ChaosOptions};
use throughline_test_services::fleet::{Fleet, Node};
use throughline_test_services::promises;
use throughline_test_services::redis::{Redis, RedisCluster};
use throughline_test_services::tcp_proxy::TcpProxy;

use super::fleets::*;

/// Ways to both services that can be cut, and the addresses at which they are reached through them.
struct Ways {
    to_database: TcpProxy,
    to_redis: TcpProxy,
    database: String,
    redis: String,
}

impl Ways {
    fn of(fleet: &Fleet) -> Self {
        let (postgres, redis) = (fleet.postgres.address(), fleet.redis.address());
        let (to_database, to_redis) = (TcpProxy::to(postgres).unwrap(), TcpProxy::to(redis).unwrap());
        let database = fleet.postgres.url("shop").replace(&postgres.to_string(), &to_database.address().to_string());
        let redis = fleet.redis.url_through(to_redis.address());
        Self { to_database, to_redis, database, redis }
    }
}

#[tokio::test]
async fn servers_share_sessions_and_their_followers() {
    let fleet = fleet();
    let nodes = [fleet.node("a", &[]).unwrap(), fleet.node("b", &[]).unwrap()];
    let (here, there) = ([nodes[0].address.clone()], [nodes[1].address.clone()]);
    let one = Identity::new();
    let other = one.another_tab();
    let first = Buyer::start(&one, &here, OFTEN);
    accepted(&first, 3).await;
    let second = Buyer::start(&other, &there, OFTEN);
    accepted(&second, 40).await;
    let (outcome, _) = settled(&fleet, &[&nodes[0], &nodes[1]], vec![(one, first), (other, second)]).await;
    assert!(outcome.acknowledged > 80, "{outcome}");
}

#[tokio::test]
async fn without_redis_servers_hear_of_each_other_through_the_database() {
    let fleet = fleet();
    let database = fleet.postgres.url("shop");
    let nodes = [fleet.node_on("a", &database, None, &[]).unwrap(), fleet.node_on("b", &database, None, &[]).unwrap()];
    let one = Identity::new();
    let other = one.another_tab();
    let first = Buyer::start(&one, std::slice::from_ref(&nodes[0].address), OFTEN);
    accepted(&first, 3).await;
    let second = Buyer::start(&other, std::slice::from_ref(&nodes[1].address), OFTEN);
    accepted(&second, 20).await;
    assert_eq!(mode(&nodes[0]).await, "normal");
    // Somebody who only listens, too: what is written at one server is shown at the other without asking anybody.
    let id = created(&fleet, &nodes[0]).await;
    let email = async || promises::session(&fleet, &nodes[1], &id).await.unwrap()["email"].clone();
    assert_eq!(email().await, Value::Null);
    assert_eq!(strict(&fleet, &nodes[0], &id, "ada@example.com").await.0, 200);
    until("the other shows it", Duration::from_secs(2), async || email().await == "ada@example.com").await;
    let (outcome, _) = settled(&fleet, &[&nodes[0], &nodes[1]], vec![(one, first), (other, second)]).await;
    assert!(outcome.acknowledged > 40, "{outcome}");
}

#[tokio::test]
async fn what_was_accepted_survives_its_server_and_its_buyer() {
    let fleet = fleet();
    let mut doomed = fleet.node("doomed", &["--flush-interval", "1s"]).unwrap();
    let heir = fleet.node("heir", &[]).unwrap();
    let mut accepted_in_all = 0;
    for round in 0..3 {
        let mut buyers = Vec::new();
        for _ in 0..4 {
            let identity = Identity::new();
            let buyer = Buyer::start(&identity, std::slice::from_ref(&doomed.address), OFTEN);
            buyers.push((identity, buyer));
        }
        all_accepted(&buyers, 10 + round).await;
        doomed.kill().unwrap();
        for (identity, buyer) in buyers {
            let told = buyer.leave().await;
            let ahead = told.accepted.difference(&told.durable).count();
            accepted_in_all += ahead;
            let clients = [(identity, told)];
            until("what was accepted is in the database", LONG, async || {
                promises::check(&fleet, &[&heir], &clients).await.is_ok_and(|outcome| outcome.lost == 0)
            })
            .await;
            let outcome = promises::check(&fleet, &[&heir], &clients).await.unwrap();
            assert!(outcome.is_kept(), "{outcome}");
        }
        doomed.start_again().unwrap();
    }
    assert!(accepted_in_all > 0, "every change was durable before the server was killed");
}

#[tokio::test]
async fn a_killed_redis_loses_nothing_and_is_used_again() {
    let mut fleet = fleet();
    let nodes = [fleet.node("a", &[]).unwrap(), fleet.node("b", &[]).unwrap()];
    let servers: Vec<String> = nodes.iter().map(|node| node.address.clone()).collect();
    let identity = Identity::new();
    let tab = identity.another_tab();
    let buyer = Buyer::start(&identity, &servers[..1], OFTEN);
    accepted(&buyer, 10).await;
    let other = Buyer::start(&tab, &servers[1..], OFTEN);
    accepted(&other, 10).await;
    let modes = || modes_told(&nodes[0]);
    for _ in 0..2 {
        let told = modes().len();
        fleet.redis.kill().unwrap();
        until("the breaker opens", Duration::from_secs(1), async || mode(&nodes[0]).await == "withoutRedis").await;
        let (status, body) = nodes[0].readiness().await.unwrap();
        assert_eq!((status, body["status"].as_str()), (200, Some("degraded")), "{body}");
        accepted(&buyer, 10).await;
        accepted(&other, 10).await;
        fleet.redis.start_again().unwrap();
        for node in &nodes {
            until("it is used again", Duration::from_secs(5), async || mode(node).await == "normal").await;
        }
        // The log is told a moment later. What is over before that is no change of mode to it.
        until("the log says so", LONG, async || {
            let modes = modes();
            modes.len() >= told + 2 && modes.last().is_some_and(|mode| mode == "normal")
        })
        .await;
        accepted(&buyer, 10).await;
    }
    settled(&fleet, &[&nodes[0], &nodes[1]], vec![(identity, buyer), (tab, other)]).await;
    let is_told_once = modes().windows(2).all(|two| two[0] != two[1]);
    assert!(is_told_once, "each change of mode is told once; {}", nodes[0].log());
}

/// The modes that a server's log tells of, one after the other.
fn modes_told(node: &Node) -> Vec<String> {
    let log = node.log();
    let modes = log.lines().filter_map(|line| Some(line.split_once("mode=\"")?.1.split('"').next()?.to_owned()));
    modes.collect()
}

#[tokio::test]
async fn a_redis_that_is_emptied_again_and_again_loses_and_doubles_nothing() {
    let fleet = fleet();
    // Enough time that each flush of Redis finds something that the database does not have yet.
    let slow = ["--flush-interval", "500ms"];
    let nodes = [fleet.node("a", &slow).unwrap(), fleet.node("b", &slow).unwrap()];
    let mut buyers = Vec::new();
    for _ in 0..3 {
        let identity = Identity::new();
        for (identity, node) in [(identity.another_tab(), &nodes[0]), (identity, &nodes[1])] {
            let buyer = Buyer::start(&identity, std::slice::from_ref(&node.address), OFTEN * 4);
            buyers.push((identity, buyer));
        }
    }
    all_accepted(&buyers, 3).await;
    // A back end changes the same sessions through both servers: strictly, and ahead of the database. It sends nothing
    // again that was acknowledged.
    let ids: Vec<String> = buyers.iter().step_by(2).map(|(identity, _)| identity.session_id.clone()).collect();
    let send = async |node: &Node, id: &str, command: &Value| -> Option<Value> {
        let body = json!({ "commands": [command] });
        let answer = post(&fleet, node, &format!("/v1/sessions/{id}/commands"), &body).send().await.unwrap();
        let is_taken = answer.status() == 200;
        let result = answer.json::<Value>().await.unwrap()["results"][0].clone();
        (is_taken && result["outcome"] == "accepted").then_some(result)
    };
    let is_over = Cell::new(false);
    let back_end = async {
        let mut acknowledged = Vec::new();
        for number in 0.. {
            if is_over.get() {
                break;
            }
            let of = number % ids.len();
            let (id, node) = (&ids[of], &nodes[number % nodes.len()]);
            let change = format!("strict-{number}");
            let strict = json!({ "type": "setMetadata", "metadata": { "change": change } });
            // One that was not acknowledged may have taken effect all the same.
            if let Some(result) = send(node, id, &strict).await {
                assert_eq!(result["durable"], true, "{result}");
                acknowledged.push((id.clone(), change));
            }
            let change = format!("relaxed-{number}");
            let relaxed = json!({
                "type": "setMetadata", "metadata": { "change": change },
                "clientId": "till", "seq": number / ids.len() + 1, "durability": "relaxed",
            });
            until("it is taken", LONG, async || send(&nodes[of % nodes.len()], id, &relaxed).await.is_some()).await;
            acknowledged.push((id.clone(), change));
        }
        acknowledged
    };
    let emptying = async {
        let mut ahead = 0.0;
        for _ in 0..10 {
            all_accepted(&buyers, 5).await;
            for node in &nodes {
                ahead += node.metric("throughline_backlog_commands").await.unwrap();
            }
            fleet.redis.command(&["FLUSHALL"]).unwrap();
        }
        all_accepted(&buyers, 5).await;
        is_over.set(true);
        ahead
    };
    let (acknowledged, ahead) = tokio::join!(back_end, emptying);
    assert!(ahead > 0.0, "the database had everything whenever Redis was emptied");
    assert!(acknowledged.len() >= 20, "{}", acknowledged.len());
    for node in &nodes {
        until("Redis is used", LONG, async || mode(node).await == "normal").await;
    }

    // It knows nothing but what the database has.
    let newcomer = fleet.node_on("newcomer", &fleet.postgres.url("shop"), None, &[]).unwrap();
    while !buyers.is_empty() {
        // Each session has two clients, next to each other.
        let of_session: Vec<_> = buyers.drain(..2).collect();
        settled(&fleet, &[&newcomer, &nodes[0], &nodes[1]], of_session).await;
    }
    for id in &ids {
        let of_session = || acknowledged.iter().filter(|(of, _)| of == id);
        // The latest ones may still be on their way.
        let settled = Duration::from_secs(5);
        until("everything acknowledged took effect, once", settled, async || {
            let records = promises::journal(&fleet, &newcomer, id).await.unwrap();
            let times =
                |change: &str| records.iter().filter(|record| record["event"]["metadata"]["change"] == *change).count();
            let times: Vec<_> = of_session().map(|(_, change)| (change, times(change))).collect();
            let doubled: Vec<_> = times.iter().filter(|(_, times)| *times > 1).collect();
            assert!(doubled.is_empty(), "{doubled:?}; {}", logs(&[&nodes[0], &nodes[1]]));
            times.iter().all(|(_, times)| *times == 1)
        })
        .await;
    }
}

#[tokio::test]
async fn a_hanging_redis_is_left_alone() {
    let fleet = fleet();
    let node = fleet.node("a", &[]).unwrap();
    let identity = Identity::new();
    let buyer = Buyer::start(&identity, std::slice::from_ref(&node.address), OFTEN);
    accepted(&buyer, 10).await;
    fleet.redis.pause().unwrap();
    until("the breaker opens", Duration::from_secs(1), async || mode(&node).await == "withoutRedis").await;
    accepted(&buyer, 20).await;
    fleet.redis.resume().unwrap();
    until("it is used again", Duration::from_secs(5), async || mode(&node).await == "normal").await;
    accepted(&buyer, 20).await;
    settled(&fleet, &[&node], vec![(identity, buyer)]).await;
}

/// The modes that a log tells of, in their order.
fn modes(log: &str) -> Vec<String> {
    let mode = |line: &str| Some(line.split_once(" mode=\"")?.1.split_once('"')?.0.to_owned());
    log.lines().filter_map(mode).collect()
}

#[tokio::test]
async fn asvs_16_5_2_without_its_database_a_server_accepts_what_may_wait_and_refuses_the_rest() {
    let mut fleet = fleet();
    let nodes = [fleet.node("a", &[]).unwrap(), fleet.node("b", &[]).unwrap()];
    let identity = Identity::new();
    let buyer = Buyer::start(&identity, std::slice::from_ref(&nodes[0].address), OFTEN);
    accepted(&buyer, 10).await;
    let id = created(&fleet, &nodes[1]).await;
    for (outages, hangs) in [(1, true), (2, false)] {
        if hangs {
            fleet.postgres.pause().unwrap();
        } else {
            fleet.postgres.kill().unwrap();
        }
        let (status, has_retry_after, took) = strict(&fleet, &nodes[1], &id, "ada@example.com").await;
        assert_eq!((status, has_retry_after), (503, true), "{}", nodes[1].log());
        assert!(took < Duration::from_secs(2), "{took:?}");
        until("it is known to be away", LONG, async || mode(&nodes[0]).await == "withoutDatabase").await;
        let durable = buyer.told().durable.len();
        accepted(&buyer, 30).await;
        assert_eq!(buyer.told().durable.len(), durable, "nothing can be durable now");
        let (status, _, took) = strict(&fleet, &nodes[0], &id, "ada@example.com").await;
        assert!(status == 503 && took < Duration::from_secs(1), "refused at once: {status} after {took:?}");
        if hangs {
            fleet.postgres.resume().unwrap();
        } else {
            fleet.postgres.start_again().unwrap();
        }
        for node in &nodes {
            until("it is used again", Duration::from_secs(10), async || mode(node).await == "normal").await;
        }
        // The log says each change once, however many were refused.
        for node in &nodes {
            until("the log says so", LONG, async || modes(&node.log()).last().is_some_and(|mode| mode == "normal"))
                .await;
            let modes = modes(&node.log());
            let is_alternating = modes.windows(2).all(|pair| pair[0] != pair[1]);
            assert!(is_alternating && modes.len() >= 2 * outages, "{modes:?}; {}", node.log());
        }
        until("a strict command is accepted", LONG, async || {
            strict(&fleet, &nodes[1], &id, "grace@example.com").await.0 == 200
        })
        .await;
    }
    settled(&fleet, &[&nodes[0], &nodes[1]], vec![(identity, buyer)]).await;
}

#[tokio::test]
async fn without_its_database_a_server_accepts_only_so_much() {
    const LIMIT: usize = 40;
    let mut fleet = fleet();
    let node = fleet.node("a", &["--backlog-limit", &LIMIT.to_string()]).unwrap();
    let (id, other) = (created(&fleet, &node).await, created(&fleet, &node).await);
    let send = async |fleet: &Fleet, id: &str, seq: usize| {
        let command = json!({
            "type": "setMetadata", "metadata": { "change": format!("relaxed-{seq}") },
            "clientId": "till", "seq": seq, "durability": "relaxed",
        });
        let body = json!({ "commands": [command] });
        let answer = post(fleet, &node, &format!("/v1/sessions/{id}/commands"), &body).send().await.unwrap();
        let (status, has_retry_after) = (answer.status().as_u16(), answer.headers().contains_key("retry-after"));
        let result = answer.json::<Value>().await.unwrap()["results"][0].clone();
        assert!(
            if status == 200 { result["outcome"] == "accepted" } else { status == 503 && has_retry_after },
            "{status} {result}"
        );
        (status == 200).then(|| result["durable"] == true)
    };
    fleet.postgres.kill().unwrap();
    assert_eq!(strict(&fleet, &node, &id, "ada@example.com").await.0, 503);
    until("it is known to be away", LONG, async || mode(&node).await == "withoutDatabase").await;
    let mut accepted = 0;
    for _ in 0..2 * LIMIT {
        // What was refused is sent again under its number.
        if let Some(is_durable) = send(&fleet, &id, accepted + 1).await {
            assert!(!is_durable, "nothing can be durable now");
            accepted += 1;
        }
    }
    assert_eq!(accepted, LIMIT, "{}", node.log());
    assert_eq!(send(&fleet, &other, 1).await, None, "it is the limit of all sessions together");

    fleet.postgres.start_again().unwrap();
    until("it is used again", Duration::from_secs(10), async || mode(&node).await == "normal").await;
    until("there is room again", LONG, async || send(&fleet, &id, accepted + 1).await.is_some()).await;
    let changes = async || -> Vec<Value> {
        let records = promises::journal(&fleet, &node, &id).await.unwrap();
        let changes = records.iter().map(|record| record["event"]["metadata"]["change"].clone());
        changes.filter(Value::is_string).collect()
    };
    until("all of it is in the database", LONG, async || changes().await.len() > accepted).await;
    let expected: Vec<String> = (1..=accepted + 1).map(|seq| format!("relaxed-{seq}")).collect();
    assert_eq!(changes().await, expected, "each once, in their order");
}

#[tokio::test]
async fn two_servers_that_do_not_hear_each_other_fork_and_are_made_one() {
    let fleet = fleet();
    // Each has a Redis of its own: as if a failover had left each with another half.
    let other_half = Redis::start().unwrap();
    let way = TcpProxy::to(other_half.address()).unwrap();
    let slow = ["--flush-interval", "1s"];
    let nodes = [
        fleet.node("a", &slow).unwrap(),
        fleet.node_on("b", &fleet.postgres.url("shop"), Some(&other_half.url_through(way.address())), &slow).unwrap(),
    ];
    let one = Identity::new();
    let other = one.another_tab();
    let first = Buyer::start(&one, std::slice::from_ref(&nodes[0].address), OFTEN);
    accepted(&first, 3).await;
    let second = Buyer::start(&other, std::slice::from_ref(&nodes[1].address), OFTEN);
    until("forks are found", LONG, async || {
        nodes[0].metric("throughline_forked_commands_total").await.unwrap()
            + nodes[1].metric("throughline_forked_commands_total").await.unwrap()
            > 5.0
    })
    .await;
    // The failover is over: both are on the same half, and what the one did on the other half the other has to hear.
    way.redirect(fleet.redis.address());
    settled(&fleet, &[&nodes[0], &nodes[1]], vec![(one, first), (other, second)]).await;
}

#[tokio::test]
async fn cut_off_from_everything_a_server_shows_what_it_knows_as_stale() {
    let fleet = fleet();
    let Ways { to_database, to_redis, database, redis } = Ways::of(&fleet);
    let cut = fleet.node_on("cut", &database, Some(&redis), &[]).unwrap();
    let whole = fleet.node("whole", &[]).unwrap();
    let id = created(&fleet, &cut).await;
    let get = async |node: &Node, id: &str| {
        let client = reqwest::Client::builder().timeout(LONG).build().unwrap();
        let url = format!("http://{}/v1/sessions/{id}", node.address);
        client.get(url).bearer_auth(&fleet.service_key).send().await.unwrap()
    };
    assert!(!get(&cut, &id).await.headers().contains_key("warning"));
    to_database.cut();
    to_redis.cut();
    until("both are known to be away", Duration::from_secs(5), async || mode(&cut).await == "memoryOnly").await;
    assert_eq!(cut.readiness().await.unwrap().0, 503);
    let started = Instant::now();
    let answer = get(&cut, &id).await;
    assert_eq!(answer.status(), 200, "{}", cut.log());
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert!(answer.headers()["warning"].to_str().unwrap().starts_with("110 "), "{answer:?}");
    assert!(answer.headers().contains_key("age"));
    let validate = reqwest::Client::new().post(format!("http://{}/v1/sessions/{id}/validate", cut.address));
    let answer = validate.bearer_auth(&fleet.service_key).send().await.unwrap();
    assert!(answer.status() == 200 && answer.headers().contains_key("warning"), "{answer:?}");
    let unknown = created(&fleet, &whole).await;
    assert_eq!(get(&cut, &unknown).await.status(), 503, "what it does not know it can't show");
    assert_eq!(strict(&fleet, &cut, &id, "ada@example.com").await.0, 503);

    // Others go on; what they change is shown as soon as it can be known.
    assert_eq!(strict(&fleet, &whole, &id, "grace@example.com").await.0, 200);
    to_database.heal();
    to_redis.heal();
    until("it works again", Duration::from_secs(10), async || mode(&cut).await == "normal").await;
    let answer = get(&cut, &id).await;
    assert!(!answer.headers().contains_key("warning"));
    assert_eq!(answer.json::<Value>().await.unwrap()["email"], "grace@example.com");
}

#[tokio::test]
async fn two_servers_that_are_cut_off_from_different_services_do_not_show_old_states_as_new() {
    let fleet = fleet();
    let Ways { to_database, to_redis, database, redis } = Ways::of(&fleet);
    let without_database = fleet.node_on("without-database", &database, Some(&fleet.redis.url()), &[]).unwrap();
    let without_redis = fleet.node_on("without-redis", &fleet.postgres.url("shop"), Some(&redis), &[]).unwrap();
    let id = created(&fleet, &without_database).await;
    let look = async || {
        let client = reqwest::Client::builder().timeout(LONG).build().unwrap();
        let url = format!("http://{}/v1/sessions/{id}", without_database.address);
        let answer = client.get(url).bearer_auth(&fleet.service_key).send().await.unwrap();
        let is_marked = answer.headers().contains_key("warning") && answer.headers().contains_key("age");
        (is_marked, answer.json::<Value>().await.unwrap()["email"].clone())
    };
    assert_eq!(look().await, (false, Value::Null));
    to_database.cut();
    to_redis.cut();
    until("each knows what it lacks", LONG, async || {
        mode(&without_database).await == "withoutDatabase" && mode(&without_redis).await == "withoutRedis"
    })
    .await;
    // There is no way on which the one could hear of this.
    assert_eq!(strict(&fleet, &without_redis, &id, "ada@example.com").await.0, 200, "{}", without_redis.log());
    for _ in 0..5 {
        assert_eq!(look().await, (true, Value::Null));
    }
    to_database.heal();
    to_redis.heal();
    until("it is up to date", LONG, async || look().await == (false, json!("ada@example.com"))).await;
}

#[tokio::test]
async fn servers_on_different_redis_find_out_and_ask_the_database() {
    let fleet = fleet();
    let elsewhere = Redis::start().unwrap();
    let database = fleet.postgres.url("shop");
    let here = fleet.node("here", &[]).unwrap();
    let others = [
        fleet.node_on("elsewhere", &database, Some(&elsewhere.url()), &[]).unwrap(),
        fleet.node_on("without", &database, None, &[]).unwrap(),
        fleet.node("prefix", &["--redis-prefix", "other"]).unwrap(),
    ];
    let id = created(&fleet, &here).await;
    let email = async |node: &Node| promises::session(&fleet, node, &id).await.unwrap()["email"].clone();
    for node in others.iter().chain([&here]) {
        until("it knows", Duration::from_secs(5), async || {
            node.metric("throughline_servers_elsewhere").await.unwrap() > 0.0
        })
        .await;
        assert_eq!(node.log().matches("talk to another Redis").count(), 1, "{}", node.log());
    }
    for change in 0..5 {
        for node in [&here, &others[0], &others[1], &others[2]] {
            let expected = format!("ada-{change}@example.com");
            assert_eq!(strict(&fleet, node, &id, &expected).await.0, 200, "{}", node.log());
            for node in [&here, &others[0], &others[1], &others[2]] {
                assert_eq!(email(node).await, *expected, "{}", node.address);
            }
        }
    }
    // Once the others are gone, memory is believed again.
    drop(others);
    until("it knows", LONG, async || here.metric("throughline_servers_elsewhere").await.unwrap() == 0.0).await;
    assert!(here.log().contains("all servers talk to the same Redis"), "{}", here.log());
}

#[tokio::test]
async fn cut_off_from_everything_a_server_shows_nobody_an_older_session_than_before() {
    let fleet = fleet();
    let Ways { to_database, to_redis, database, redis } = Ways::of(&fleet);
    let cut = fleet.node_on("cut", &database, Some(&redis), &[]).unwrap();
    let mut whole = fleet.node("whole", &[]).unwrap();
    let identity = Identity::new();
    let buyer = Buyer::start(&identity, std::slice::from_ref(&cut.address), OFTEN);
    accepted(&buyer, 10).await;
    let comes = async |times: u64| {
        let before = buyer.told().connections;
        until("the buyer comes", LONG, async || buyer.told().connections >= before + times).await;
    };
    // The buyer goes on elsewhere, and the server that was left has the session as it was then.
    buyer.use_servers(std::slice::from_ref(&whole.address));
    cut.pause().unwrap();
    to_redis.cut();
    to_database.cut();
    comes(1).await;
    let durable = buyer.told().durable.len();
    until("more is durable", LONG, async || buyer.told().durable.len() > durable + 20).await;
    cut.resume().unwrap();
    until("it knows that it is cut off", LONG, async || mode(&cut).await == "memoryOnly").await;
    buyer.use_servers(std::slice::from_ref(&cut.address));
    whole.kill().unwrap();
    // Sent away, it comes again.
    comes(3).await;
    to_redis.heal();
    to_database.heal();
    whole.start_again().unwrap();
    let (outcome, _) = settled(&fleet, &[&cut, &whole], vec![(identity, buyer)]).await;
    assert!(outcome.acknowledged > 30, "{outcome}");
}

#[tokio::test]
async fn a_redis_cluster_is_used_like_one_redis_and_may_lose_a_part() {
    let fleet = fleet();
    let mut cluster = RedisCluster::start(3).unwrap();
    let (database, redis) = (fleet.postgres.url("shop"), cluster.url());
    let nodes = [
        fleet.node_on("a", &database, Some(&redis), &[]).unwrap(),
        fleet.node_on("b", &database, Some(&redis), &[]).unwrap(),
    ];
    let mut buyers = Vec::new();
    // Enough sessions that each part of the cluster has some.
    for _ in 0..8 {
        let identity = Identity::new();
        for (identity, node) in [(identity.another_tab(), &nodes[0]), (identity, &nodes[1])] {
            let buyer = Buyer::start(&identity, std::slice::from_ref(&node.address), OFTEN * 4);
            buyers.push((identity, buyer));
        }
    }
    all_accepted(&buyers, 5).await;
    cluster.nodes_mut()[1].kill().unwrap();
    all_accepted(&buyers, 10).await;
    cluster.nodes_mut()[1].start_again().unwrap();
    all_accepted(&buyers, 5).await;
    // Each session has two clients, next to each other.
    while !buyers.is_empty() {
        settled(&fleet, &[&nodes[0], &nodes[1]], buyers.drain(..2).collect()).await;
    }
    let keys: usize =
        cluster.nodes().iter().map(|node| node.command(&["DBSIZE"]).unwrap().parse::<usize>().unwrap()).sum();
    assert!(keys > 0, "the cluster was used");
}

#[tokio::test]
async fn servers_are_replaced_one_after_another_and_no_command_is_lost() {
    let fleet = fleet();
    let mut nodes = [fleet.node("a", &[]).unwrap(), fleet.node("b", &[]).unwrap()];
    let servers: Vec<String> = nodes.iter().map(|node| node.address.clone()).collect();
    let mut buyers = Vec::new();
    for _ in 0..5 {
        let identity = Identity::new();
        let buyer = Buyer::start(&identity, &servers, OFTEN);
        buyers.push((identity, buyer));
    }
    for node in &mut nodes {
        all_accepted(&buyers, 10).await;
        let started = Instant::now();
        let status = node.stop().unwrap();
        assert!(
            status.success() && started.elapsed() < Duration::from_secs(5),
            "{status} after {:?}",
            started.elapsed()
        );
        // What it had accepted is in the database: nobody has to take it over.
        assert!(!node.log().contains("did not take everything"), "{}", node.log());
        node.start_again().unwrap();
    }
    for buyer in buyers {
        settled(&fleet, &[&nodes[0], &nodes[1]], vec![buyer]).await;
    }
}

#[tokio::test]
async fn a_server_that_hears_nothing_from_the_others_asks_the_database() {
    let fleet = fleet();
    let to_redis = TcpProxy::to(fleet.redis.address()).unwrap();
    let deaf =
        fleet.node_on("deaf", &fleet.postgres.url("shop"), Some(&fleet.redis.url_through(to_redis.address())), &[]);
    let (deaf, whole) = (deaf.unwrap(), fleet.node("whole", &[]).unwrap());
    let id = created(&fleet, &whole).await;
    let email = async |node: &Node| promises::session(&fleet, node, &id).await.unwrap()["email"].clone();
    assert_eq!(email(&deaf).await, Value::Null);
    // First its connection is cut, then it hangs in silence, then both at once with another writer cut off.
    for (round, freezes) in [false, true].into_iter().enumerate() {
        if freezes {
            to_redis.freeze();
        } else {
            to_redis.cut();
        }
        for change in 0..5 {
            let expected = format!("ada-{round}-{change}@example.com");
            assert_eq!(strict(&fleet, &whole, &id, &expected).await.0, 200);
            // A second is how long silence may go unnoticed; that is the only time in which it may be behind.
            until("it shows what is", Duration::from_secs(2), async || email(&deaf).await == *expected).await;
        }
        until("it knows that it is cut off", LONG, async || mode(&deaf).await == "withoutRedis").await;
        let expected = format!("grace-{round}@example.com");
        assert_eq!(strict(&fleet, &whole, &id, &expected).await.0, 200);
        assert_eq!(email(&deaf).await, *expected, "it knows, so it asks");
        // What it changes itself the others hear through the database.
        let expected = format!("alan-{round}@example.com");
        assert_eq!(strict(&fleet, &deaf, &id, &expected).await.0, 200);
        until("the others hear of it", Duration::from_secs(2), async || email(&whole).await == *expected).await;
        to_redis.heal();
        until("it hears again", Duration::from_secs(5), async || mode(&deaf).await == "normal").await;
    }
}

#[tokio::test]
async fn requests_that_are_given_up_leave_nothing_half_done() {
    let fleet = fleet();
    let node = fleet.node("a", &["--max-requests", "16"]).unwrap();
    let id = created(&fleet, &node).await;
    for round in 0..150_u64 {
        let command = json!({ "type": "setMetadata", "metadata": { "change": format!("dropped-{round}") } });
        let body = json!({ "commands": [command] });
        let sent = post(&fleet, &node, &format!("/v1/sessions/{id}/commands"), &body).send();
        // Dropped at every moment between the first byte and the answer.
        let _ = tokio::time::timeout(Duration::from_micros(round * 60), sent).await;
    }
    // No place of the sixteen is lost, and the session works.
    let together = (0..16).map(|_| strict(&fleet, &node, &id, "ada@example.com"));
    for (status, ..) in futures_util::future::join_all(together).await {
        assert_eq!(status, 200);
    }
    let records = promises::journal(&fleet, &node, &id).await.unwrap();
    let versions: Vec<u64> = records.iter().map(|record| record["version"].as_u64().unwrap()).collect();
    assert_eq!(versions, (1..=versions.len() as u64).collect::<Vec<_>>());
    let mut changes: Vec<&str> =
        records.iter().filter_map(|record| record["event"]["metadata"]["change"].as_str()).collect();
    let count = changes.len();
    changes.sort_unstable();
    changes.dedup();
    assert!(changes.len() == count && count > 0, "{count} changes, {} different ones", changes.len());
}

#[tokio::test]
async fn everything_fails_for_a_while() {
    let options = ChaosOptions {
        binary: env!("CARGO_BIN_EXE_throughline").into(),
        duration: Duration::from_secs(12),
        seed: 7,
        servers: 2,
        sessions: 3,
    };
    let mut told = Vec::new();
    let summary =
        chaos::run(&options, |line| told.push(line)).await.unwrap_or_else(|error| panic!("{error}: {told:#?}"));
    assert!(summary.is_kept(), "{summary}: {told:#?}");
    println!("{summary}");
}
