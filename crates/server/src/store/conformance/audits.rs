//! What every store must do about the audit log.

use std::sync::Arc;
use std::time::Duration;

use super::{append, session};
use crate::audit::chain::RecordsDigest;
use crate::audit::sealing::Sealer;
use crate::audit::verification::verify;
use crate::audit::{AuditBlock, AuditEntry, AuditHead, AuditRecord, Denial, Denials};
use crate::keys::KeyRing;
use crate::store::{Append, CommitError, Store};
use crate::tenant::TenantId;

const NOW_MS: i64 = 1_700_000_000_000;

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn record(keys: &KeyRing, of: &str, did: &str) -> AuditRecord {
    AuditRecord::new(&AuditEntry::done(tenant(of), did, NOW_MS), keys, NOW_MS).unwrap()
}

async fn told(store: &Arc<impl Store>, of: &str) -> Vec<String> {
    let records = store.audit_records(&tenant(of), 0, u64::MAX >> 1, 1_000).await.unwrap();
    assert!(records.is_sorted_by(|one, next| one.position < next.position));
    let entries = records.iter().map(|record| serde_json::from_str::<AuditEntry>(&record.body).unwrap());
    entries.flat_map(|entry| entry.did).collect()
}

async fn faults(store: &Arc<impl Store>, keys: &KeyRing) -> Vec<String> {
    let mut faults = Vec::new();
    let note = |finding: crate::audit::verification::Finding| faults.push(finding.what.to_string());
    verify(&**store, keys, None, &[], NOW_MS, note, |_| ()).await.unwrap();
    faults
}

/// Seals until nothing is left, as long as others that use the database at the same time hold it up.
async fn seal(store: &Arc<impl Store>, sealer: &mut Sealer) {
    for _ in 0..500 {
        sealer.work(&Denials::default(), NOW_MS).await.unwrap();
        if store.unsealed_tenants(u64::MAX >> 1).await.unwrap().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the log was not sealed in time");
}

pub async fn audit_records_are_written_with_their_change_or_not_at_all(store: Arc<impl Store>) {
    let keys = KeyRing::generate().unwrap();
    let key = session("a", "ws_1");
    let with =
        |did: &str, expected_version| Append { audit: vec![record(&keys, "a", did)], ..append(&key, expected_version) };
    store.commit(with("first", 0)).await.unwrap();
    store.commit(with("second", 1)).await.unwrap();
    let refused = store.commit(with("never", 1)).await.unwrap_err();
    assert!(matches!(refused, CommitError::Conflict { current_version: 2 }));
    store.audit(vec![record(&keys, "a", "third"), record(&keys, "b", "other")]).await.unwrap();
    assert_eq!(told(&store, "a").await, ["first", "second", "third"]);
    assert_eq!(told(&store, "b").await, ["other"]);
    assert_eq!(store.audited_tenants().await.unwrap(), ["a", "b"]);
    let position = store.audit_records(&tenant("a"), 0, u64::MAX >> 1, 2).await.unwrap()[1].position;
    assert_eq!(store.audit_records(&tenant("a"), position, u64::MAX >> 1, 9).await.unwrap().len(), 1);
    assert_eq!(store.audit_records(&tenant("a"), 0, position, 9).await.unwrap().len(), 2);
}

pub async fn audit_records_are_sealed_block_after_block(store: Arc<impl Store>) {
    let keys = KeyRing::generate().unwrap();
    let mut sealer = Sealer::new(store.clone(), keys.clone());
    assert_eq!(store.audit_head(&tenant("a")).await.unwrap(), None);
    store.audit(vec![record(&keys, "a", "first"), record(&keys, "b", "other")]).await.unwrap();
    seal(&store, &mut sealer).await;
    let first = store.audit_head(&tenant("a")).await.unwrap().unwrap();
    assert_eq!(first.sequence, 1);
    let key = session("a", "ws_1");
    let change = Append { audit: vec![record(&keys, "a", "second")], ..append(&key, 0) };
    store.commit(change).await.unwrap();
    let denials = Denials::default();
    denials.note(Denial { tenant: tenant("a"), ..Denial::of_nobody("authenticate", "tokenExpired") });
    sealer.work(&denials, NOW_MS).await.unwrap();
    // Another server finds the rest, and goes on where the first one was.
    seal(&store, &mut Sealer::new(store.clone(), keys.clone())).await;
    assert_eq!(told(&store, "a").await, ["first", "second", "authenticate"]);
    let blocks = store.audit_blocks(&tenant("a"), 0, 10).await.unwrap();
    assert_eq!(blocks.iter().map(|block| block.records).sum::<u64>(), 3);
    assert_eq!(
        blocks.iter().map(|block| block.sequence).collect::<Vec<_>>(),
        (1..=blocks.len() as u64).collect::<Vec<_>>()
    );
    assert_eq!(blocks[1].previous, first.hash);
    assert_eq!(store.audit_blocks(&tenant("a"), 0, 1).await.unwrap(), blocks[..1]);
    assert_eq!(store.audit_blocks(&tenant("a"), 1, 10).await.unwrap(), blocks[1..]);
    assert_eq!(faults(&store, &keys).await, Vec::<String>::new());
    // Without new records nothing is written: a quiet shop's chain does not grow.
    let head = store.audit_head(&tenant("a")).await.unwrap();
    seal(&store, &mut sealer).await;
    assert_eq!(store.audit_head(&tenant("a")).await.unwrap(), head);
}

pub async fn of_two_blocks_with_one_number_the_first_one_stays(store: Arc<impl Store>) {
    let keys = KeyRing::generate().unwrap();
    let block = |head: Option<&AuditHead>, through| {
        AuditBlock::seal(&tenant("a"), head, through, RecordsDigest::default(), NOW_MS)
    };
    let head = |block: &AuditBlock| AuditHead::of(block, &keys, NOW_MS);
    let (first, rival) = (block(None, 5), block(None, 6));
    assert!(store.seal_audit(&first, &head(&first)).await.unwrap());
    assert!(!store.seal_audit(&rival, &head(&rival)).await.unwrap());
    let (second, late) = (block(Some(&head(&first)), 9), block(Some(&head(&rival)), 8));
    let (one, other) = (head(&second), head(&late));
    let (one, other) = tokio::join!(store.seal_audit(&second, &one), store.seal_audit(&late, &other));
    assert!(one.unwrap() ^ other.unwrap(), "exactly one of them is written");
    let blocks = store.audit_blocks(&tenant("a"), 0, 10).await.unwrap();
    assert_eq!(blocks.len(), 2);
    assert_eq!(blocks[0], first);
    let latest = store.audit_head(&tenant("a")).await.unwrap().unwrap();
    assert_eq!(latest, head(&blocks[1]));
    assert_eq!(store.audit_heads().await.unwrap(), [("a".to_owned(), latest)]);
}
