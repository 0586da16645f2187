//! Where the epochs of new sessions come from.

use std::sync::atomic::{AtomicU64, Ordering};

/// Random numbers that tell histories apart. Not secrets: one seed from the operating system, mixed on (SplitMix64), so that
/// nothing that only might create a session costs a system call.
#[derive(Debug)]
pub(super) struct Epochs {
    next: AtomicU64,
}

impl Epochs {
    /// `now_ms` is the seed should the operating system have none.
    pub(super) fn new(now_ms: i64) -> Self {
        let mut seed = [0; 8];
        if getrandom::fill(&mut seed).is_err() {
            seed = now_ms.to_le_bytes();
        }
        Self { next: AtomicU64::new(u64::from_le_bytes(seed)) }
    }

    /// 53 bits, so that JavaScript can hold them, and never 0, which means no session.
    pub(super) fn draw(&self) -> u64 {
        let mut mixed = self.next.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_differ_and_fit_a_javascript_number() {
        let epochs = Epochs::new(0);
        let drawn: std::collections::HashSet<u64> = (0..10_000).map(|_| epochs.draw()).collect();
        assert_eq!(drawn.len(), 10_000);
        assert!(drawn.iter().all(|epoch| (1..1 << 53).contains(epoch)));
        assert_ne!(Epochs::new(0).draw(), Epochs::new(0).draw(), "another process draws others");
    }
}
