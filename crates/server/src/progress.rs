//! How far a long command has come: a bar for people, and now and then a line for a log.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressStyle};

/// How often a log that nobody looks at hears of the progress.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The progress of a command that goes through sessions.
pub(crate) struct Progress {
    bar: ProgressBar,
    is_drawn: bool,
    started: Instant,
    told: Instant,
    /// How much there is to be done; unknown where missing.
    total: Option<u64>,
}

impl Progress {
    /// Of as many sessions as this.
    pub(crate) fn of(total: u64, started: Instant) -> Self {
        Self::new(Some(total), "{human_pos} of {human_len}", started)
    }

    /// Of a file with as many bytes as this.
    pub(crate) fn of_bytes(total: u64, started: Instant) -> Self {
        Self::new(Some(total), "{bytes} of {total_bytes}", started)
    }

    /// Of nobody knows how many.
    pub(crate) fn counting(started: Instant) -> Self {
        Self::new(None, "{human_pos}", started)
    }

    fn new(total: Option<u64>, counts: &str, started: Instant) -> Self {
        let is_drawn = io::stderr().is_terminal();
        let bar = match total {
            _ if !is_drawn => ProgressBar::hidden(),
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::new_spinner(),
        };
        let (left, eta) = if total.is_some() { ("{wide_bar} ", ", {eta} left") } else { ("{spinner} ", "") };
        if let Ok(style) = ProgressStyle::with_template(&format!("{left}{counts}, {{per_sec}}{eta}")) {
            bar.set_style(style);
        }
        Self { bar, is_drawn, started, told: started, total }
    }

    /// Says something beside the bar.
    pub(crate) fn say(&self, text: &str) {
        // There is nobody left to tell when standard error is closed.
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// So far: the part of the total, and how many sessions that are.
    pub(crate) fn reach(&mut self, reached: u64, sessions: u64) {
        self.bar.set_position(reached);
        if !self.is_drawn && self.told.elapsed() >= LINE_EVERY {
            self.told = Instant::now();
            let share = match self.total {
                Some(0) => ", 100 %".to_owned(),
                Some(total) => format!(", {:.0} %", 100.0 * reached as f64 / total as f64),
                None => String::new(),
            };
            let (seen, taken) = (HumanCount(sessions), HumanDuration(self.started.elapsed()));
            self.say(&format!("{seen} sessions{share}, after {taken}"));
        }
    }

    /// Takes the bar away.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
