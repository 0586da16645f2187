//! How far a log can be read without missing anything, where many transactions write to it at the same time.

use std::time::{Duration, Instant};

/// Up to where a log is whole: what a database says of itself at one moment.
///
/// Positions are given before their transactions end. Those up to `position` are all there, or will never be, once a later mark's
/// `oldest_transaction` has reached this one's `next_transaction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogMark {
    /// The latest position that was given.
    pub position: u64,
    /// An id that is larger than that of any transaction that has taken a position up to this one.
    pub next_transaction: u64,
    /// The oldest transaction that may be under way.
    pub oldest_transaction: u64,
}

/// How many moments of a log are remembered while a transaction holds it up. Beyond, every second one is forgotten: it goes on in
/// larger steps then.
const MARKS: usize = 128;

/// Tells from the marks of a log, one after another, up to where it is whole.
#[derive(Debug, Default)]
pub struct Settling {
    marks: Vec<Seen>,
    settled: u64,
}

/// A moment of the log.
#[derive(Debug, Clone, Copy)]
struct Seen {
    position: u64,
    /// Everything up to the position is there once all transactions before this one are over.
    transaction: u64,
    at: Instant,
}

impl Settling {
    /// The position up to which nothing is under way any more, as far as this mark tells.
    pub fn settled(&mut self, mark: LogMark) -> Option<u64> {
        let LogMark { position, next_transaction: transaction, oldest_transaction } = mark;
        self.marks.push(Seen { position, transaction, at: Instant::now() });
        if self.marks.len() > MARKS {
            let mut index = 0;
            self.marks.retain(|_| {
                index += 1;
                index % 2 == 1
            });
        }
        let over = self.marks.iter().rposition(|seen| seen.transaction <= oldest_transaction)?;
        let settled = self.marks[over].position;
        // The one that is settled stays: as long as nothing later is, it is how far the log can be read.
        self.marks.drain(..over);
        self.settled = settled;
        Some(settled)
    }

    /// The position up to which the log was last found to be whole.
    #[must_use]
    pub const fn known(&self) -> u64 {
        self.settled
    }

    /// For how long what comes after `position` has been waiting, at most.
    #[must_use]
    pub fn waiting_since(&self, position: u64) -> Duration {
        let waiting = self.marks.iter().find(|seen| seen.position > position);
        waiting.map_or(Duration::ZERO, |seen| seen.at.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(position: u64, next_transaction: u64, oldest_transaction: u64) -> LogMark {
        LogMark { position, next_transaction, oldest_transaction }
    }

    #[test]
    fn nothing_is_settled_before_all_that_had_begun_is_over() {
        let mut settling = Settling::default();
        assert_eq!(settling.settled(mark(10, 100, 90)), None, "somebody who began before may still write");
        assert_eq!(settling.settled(mark(12, 105, 99)), None);
        assert_eq!(settling.settled(mark(15, 107, 100)), Some(10), "all that had begun at the first mark is over");
        assert_eq!(settling.settled(mark(15, 107, 107)), Some(15));
    }

    #[test]
    fn transactions_that_overlap_without_an_end_hold_a_log_up_and_do_not_stop_it() {
        let mut settling = Settling::default();
        let mut settled = 0;
        // Each transaction lasts for 400 rounds, and another one begins every 200.
        for round in 0..4_000_u64 {
            let oldest = 1_000 + (round.saturating_sub(400) / 200) * 200;
            settled = settling.settled(mark(round, 1_000 + round, oldest)).unwrap_or(settled);
            assert!(settling.marks.len() <= MARKS);
        }
        assert!(settled > 2_500, "{settled}");
    }
}
