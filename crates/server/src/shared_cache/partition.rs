//! Which partition a session belongs to, and what the partition's keys are called.
//!
//! The names are a promise between servers of different releases that share one Redis: a
//! change to them needs a new prefix.

use crate::store::SessionKey;
use crate::tenant::TenantId;

/// Into how many partitions the sessions are spread.
pub const PARTITIONS: usize = 64;

/// One of the [`PARTITIONS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(u8);

impl Partition {
    /// The partition of a session: FNV-1a (64 bit) over the tenant's name, a zero byte and the
    /// session's id, folded to 32 bits, modulo [`PARTITIONS`].
    #[must_use]
    pub fn of(key: &SessionKey) -> Self {
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        let bytes = key.tenant.as_str().bytes().chain([0]).chain(key.session_id.bytes());
        let hash = bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
        // The low bits of FNV alone are its weakest.
        let folded = (hash >> 32) ^ (hash & 0xffff_ffff);
        #[allow(clippy::cast_possible_truncation)] // Below 64.
        Self((folded % PARTITIONS as u64) as u8)
    }

    /// All partitions, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..PARTITIONS).map(|index| {
            #[allow(clippy::cast_possible_truncation)] // Below 64.
            Self(index as u8)
        })
    }

    /// Its number, below [`PARTITIONS`].
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl std::fmt::Display for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02}", self.0)
    }
}

/// What the keys and channels are called under one prefix.
#[derive(Debug, Clone)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// What all names begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The entry of a session.
    pub(super) fn session(&self, key: &SessionKey) -> String {
        format!("{}:{{tl{}}}:s:{}", self.prefix, Partition::of(key), member(key))
    }

    /// The sessions of a partition that have a tail, by the time since when.
    pub(super) fn unflushed(&self, partition: Partition) -> String {
        format!("{}:{{tl{partition}}}:unflushed", self.prefix)
    }

    /// How many messages the partition's channel has carried.
    pub(super) fn sequence(&self, partition: Partition) -> String {
        format!("{}:{{tl{partition}}}:sequence", self.prefix)
    }

    /// The partition's channel.
    pub(super) fn channel(&self, partition: Partition) -> String {
        format!("{}:{{tl{partition}}}:messages", self.prefix)
    }

    /// Which partition's channel this is.
    pub(super) fn partition_of_channel(&self, channel: &[u8]) -> Option<Partition> {
        let rest = channel.strip_prefix(self.prefix.as_bytes())?.strip_prefix(b":{tl")?;
        let digits = std::str::from_utf8(rest.strip_suffix(b"}:messages")?).ok()?;
        let number: u8 = digits.parse().ok()?;
        (usize::from(number) < PARTITIONS).then_some(Partition(number))
    }

    /// What the keys of all sessions of a partition begin with.
    pub(super) fn sessions_of(&self, partition: Partition) -> String {
        format!("{}:{{tl{partition}}}:s:", self.prefix)
    }
}

/// A session's name within its partition. No tenant's name holds a `/`.
pub(super) fn member(key: &SessionKey) -> String {
    format!("{}/{}", key.tenant.as_str(), key.session_id)
}

/// The session that [`member`] named, if it is one.
pub(super) fn session_of_member(member: &[u8]) -> Option<SessionKey> {
    let (tenant, session_id) = std::str::from_utf8(member).ok()?.split_once('/')?;
    let tenant: TenantId = tenant.parse().ok()?;
    Some(SessionKey { tenant, session_id: session_id.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(tenant: &str, session_id: &str) -> SessionKey {
        SessionKey { tenant: tenant.parse().expect("a tenant's name"), session_id: session_id.to_owned() }
    }

    /// Servers of different releases share one Redis: these numbers must never change.
    #[test]
    fn the_partition_of_a_session_is_the_same_in_every_release() {
        let partitions: Vec<usize> = [("default", "ws_1"), ("default", "ws_2"), ("shop-a", "ws_1"), ("default", "")]
            .map(|(tenant, session_id)| Partition::of(&key(tenant, session_id)).index())
            .to_vec();
        assert_eq!(partitions, [1, 40, 59, 31]);
    }

    #[test]
    fn sessions_are_spread_evenly() {
        let mut sessions = [0_u32; PARTITIONS];
        for number in 0..6400 {
            sessions[Partition::of(&key("default", &format!("ws_{number}"))).index()] += 1;
        }
        assert!(sessions.iter().all(|count| (50..200).contains(count)), "{sessions:?}");
    }

    #[test]
    fn names_can_be_read_back() {
        let names = Names::new("throughline");
        for partition in Partition::all() {
            assert_eq!(names.partition_of_channel(names.channel(partition).as_bytes()), Some(partition));
        }
        for foreign in ["other:{tl01}:messages", "throughline:{tl64}:messages", "throughline:{tl01}:s:x", ""] {
            assert_eq!(names.partition_of_channel(foreign.as_bytes()), None, "{foreign}");
        }
        let key = key("shop-a", "odd/{id}");
        assert_eq!(session_of_member(member(&key).as_bytes()), Some(key));
        assert_eq!(session_of_member(b"no separator"), None);
        assert_eq!(session_of_member(b"\xff/x"), None);
    }
}
