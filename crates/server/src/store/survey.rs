//! Questions about many sessions of a tenant: a page of them, and sums over them.
//!
//! Both databases are asked with nearly the same text. `Statement` writes it, so that each form of a question names the
//! index that answers it: the order of a page is the order of the index, whatever is filtered by.
//!
//! These questions go over connections of their own, few of them and with a longer limit: a large one neither takes the
//! place of what buyers wait for, nor looks like a database that is away.

use std::fmt::Write as _;
use std::time::Duration;

use super::{ReadError, STATUSES, Stored};
use crate::tenant::TenantId;

/// How many of these questions a server asks its database at the same time.
pub(crate) const AT_ONCE: u32 = 2;

/// How long the answer to one may take.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

/// A time from one moment on and before another, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimeRange {
    /// The first moment that belongs to it; `None` for the beginning of all time.
    pub from_ms: Option<i64>,
    /// The first moment after it; `None` for the end of all time.
    pub before_ms: Option<i64>,
}

impl TimeRange {
    fn holds(&self, at_ms: i64) -> bool {
        self.from_ms.is_none_or(|from_ms| at_ms >= from_ms) && self.before_ms.is_none_or(|before_ms| at_ms < before_ms)
    }
}

/// Which sessions are wanted. What is `None` or empty does not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// Whose sessions.
    pub tenant: TenantId,
    /// Any of these keyed hashes of the email address: one for each root key.
    pub email_digests: Vec<Vec<u8>>,
    /// Any of these statuses.
    pub statuses: Vec<String>,
    /// The step that the buyer is at.
    pub step: Option<String>,
    /// The funnel.
    pub funnel_id: Option<String>,
    /// When they were created.
    pub created: TimeRange,
    /// When they last changed.
    pub updated: TimeRange,
    /// What comes after this one in the order of answers.
    pub after: Option<Position>,
    /// How many at most.
    pub limit: u32,
}

/// The place of a session in the order of answers: the latest one first, then by id. It never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// When it was created.
    pub created_at_ms: i64,
    /// Its id.
    pub session_id: String,
}

/// A session that matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its place.
    pub position: Position,
    /// The session.
    pub stored: Stored,
}

/// Over which sessions is summed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SummaryOf {
    /// Whose sessions.
    pub tenant: TenantId,
    /// Of one funnel only.
    pub funnel_id: Option<String>,
    /// The first moment of their creation, in milliseconds since 1970.
    pub created_from_ms: i64,
    /// The first moment after it.
    pub created_before_ms: i64,
}

/// Sums over sessions.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Summary {
    /// Sessions that have the same in all that is counted by; in no order.
    pub groups: Vec<Group>,
    /// How long those lived that ended by themselves; `None` where none did.
    pub lifetimes: Option<Lifetimes>,
}

/// Sessions that have the same in all that is counted by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// Their status.
    pub status: String,
    /// The step that they are at.
    pub step: String,
    /// Their funnel.
    pub funnel_id: String,
    /// Its version.
    pub funnel_version: String,
    /// Their currency.
    pub currency: String,
    /// Whether their personal data was erased.
    pub erased: bool,
    /// How many they are.
    pub sessions: u64,
    /// What they cost together, in minor units.
    pub amount_minor: i64,
}

/// How long sessions lived: from their creation to their completion, or to the end of their time. Erased ones do not
/// count, because nobody noted down when they would have ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lifetimes {
    /// How many they are.
    pub sessions: u64,
    /// The average, in milliseconds.
    pub average_ms: f64,
    /// The median, in milliseconds: of an even number, the middle between the two in the middle.
    pub median_ms: f64,
}

/// Why a question about many sessions was not answered.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SurveyError {
    /// The database could not be asked.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The database did not finish in time.
    #[error(
        "too many sessions would have to be looked at; ask about a shorter time, or filter by status, step or email"
    )]
    TooSlow,
}

impl Search {
    /// Whether a session of this tenant is wanted, for a store that looks at each.
    pub(super) fn wants(&self, position: &Position, columns: &super::Operational) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        (self.statuses.is_empty() || self.statuses.contains(&columns.status))
            && is(&self.step, &columns.step)
            && is(&self.funnel_id, &columns.funnel_id)
            && (self.email_digests.is_empty()
                || columns.email_digest.as_ref().is_some_and(|digest| self.email_digests.contains(digest)))
            && self.created.holds(columns.created_at_ms)
            && self.updated.holds(columns.updated_at_ms)
            && self.after.as_ref().is_none_or(|after| position.comes_after(after))
    }
}

impl Position {
    /// Whether it comes later in the order of answers.
    pub(super) fn comes_after(&self, other: &Self) -> bool {
        (other.created_at_ms, &self.session_id) > (self.created_at_ms, &other.session_id)
    }
}

/// For which database a statement is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Postgres,
    Sqlite,
}

impl Dialect {
    /// The table; SQLite is told the index, because it knows nothing of how many rows there are.
    fn sessions(self, index: &str) -> String {
        match self {
            Self::Postgres => "sessions".to_owned(),
            Self::Sqlite => format!("sessions INDEXED BY {index}"),
        }
    }
}

/// A value in a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Argument {
    Text(String),
    Number(i64),
    Bytes(Vec<u8>),
}

/// A statement. Its text is made of fixed pieces only: every value is an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) text: String,
    pub(super) arguments: Vec<Argument>,
}

impl Statement {
    fn new() -> Self {
        Self { text: String::new(), arguments: Vec::new() }
    }

    /// Takes up a value; answers with its name in the text.
    fn argument(&mut self, value: Argument) -> String {
        self.arguments.push(value);
        format!("${}", self.arguments.len())
    }

    fn text(&mut self, value: &str) -> String {
        self.argument(Argument::Text(value.to_owned()))
    }

    fn number(&mut self, value: i64) -> String {
        self.argument(Argument::Number(value))
    }

    /// The statement that a search is. Its columns: id, time of creation, version, state, root key, data key.
    pub(super) fn search(search: &Search, dialect: Dialect) -> Self {
        let mut statement = Self::new();
        let conditions = statement.conditions(search);
        let limit = statement.number(i64::from(search.limit));
        const ORDER: &str = "ORDER BY created_at_ms DESC, session_id LIMIT";
        let select = |index: &str, conditions: &str| {
            let table = dialect.sessions(index);
            format!(
                "SELECT session_id, created_at_ms, version, state, root_key_id, data_key FROM {table}
                 WHERE {conditions} {ORDER} {limit}"
            )
        };
        let wanted = || search.statuses.iter().map(String::as_str);
        if !search.email_digests.is_empty() {
            // One buyer has few sessions: what else is asked for is looked up in each.
            let statuses: Vec<String> = wanted().map(|status| statement.text(status)).collect();
            let any =
                if statuses.is_empty() { String::new() } else { format!(" AND status IN ({})", statuses.join(", ")) };
            statement.text = select("sessions_by_email", &format!("{conditions}{any}"));
            return statement;
        }
        let branches: Vec<&str> = match (&search.step, search.statuses.as_slice()) {
            (None, []) => {
                statement.text = select("sessions_recent", &conditions);
                return statement;
            }
            // The index of steps is ordered within each status.
            (Some(_), []) => STATUSES.to_vec(),
            (_, _) => wanted().collect(),
        };
        let index = if search.step.is_some() { "sessions_by_step" } else { "sessions_by_status" };
        // A part for each status, each in the order of its index: they only have to be merged.
        let parts: Vec<String> = (1..)
            .zip(branches)
            .map(|(number, status)| {
                let status = statement.text(status);
                format!(
                    "SELECT * FROM ({}) AS part_{number}",
                    select(index, &format!("{conditions} AND status = {status}"))
                )
            })
            .collect();
        statement.text = format!("{} {ORDER} {limit}", parts.join(" UNION ALL "));
        statement
    }

    /// What holds for each part of a search.
    fn conditions(&mut self, search: &Search) -> String {
        let mut all = vec![format!("tenant = {}", self.text(search.tenant.as_str()))];
        if !search.email_digests.is_empty() {
            let any = search.email_digests.iter().map(|digest| self.argument(Argument::Bytes(digest.clone())));
            let any: Vec<String> = any.collect();
            all.push(format!("email_digest IN ({})", any.join(", ")));
        }
        if let Some(step) = &search.step {
            all.push(format!("step = {}", self.text(step)));
        }
        if let Some(funnel) = &search.funnel_id {
            all.push(format!("funnel_id = {}", self.text(funnel)));
        }
        if let Some(from_ms) = search.updated.from_ms {
            all.push(format!("updated_at_ms >= {}", self.number(from_ms)));
        }
        if let Some(before_ms) = search.updated.before_ms {
            all.push(format!("updated_at_ms < {}", self.number(before_ms)));
        }
        if let Some(from_ms) = search.created.from_ms {
            all.push(format!("created_at_ms >= {}", self.number(from_ms)));
        }
        // Nothing changes before it is created, and the index is ordered by creation.
        if let Some(before_ms) = [search.created.before_ms, search.updated.before_ms].into_iter().flatten().min() {
            all.push(format!("created_at_ms < {}", self.number(before_ms)));
        }
        if let Some(Position { created_at_ms, session_id }) = &search.after {
            let (at, id) = (self.number(*created_at_ms), self.text(session_id));
            // The first half alone would do, were it not what the index is entered by.
            all.push(format!("created_at_ms <= {at} AND (created_at_ms < {at} OR session_id > {id})"));
        }
        all.join(" AND ")
    }

    /// The statement that sums up. Its columns: those of [`Group`], then those of [`Lifetimes`], the same in each row.
    pub(super) fn summary(of: &SummaryOf, dialect: Dialect) -> Self {
        let mut statement = Self::new();
        let table = dialect.sessions("sessions_recent");
        let tenant = statement.text(of.tenant.as_str());
        let (from, before) = (statement.number(of.created_from_ms), statement.number(of.created_before_ms));
        let funnel = of.funnel_id.as_ref().map(|funnel| format!(" AND funnel_id = {}", statement.text(funnel)));
        let funnel = funnel.unwrap_or_default();
        let lifetimes = match dialect {
            Dialect::Postgres => {
                "lifetimes AS (
                    SELECT count(lifetime_ms) AS ended, avg(lifetime_ms)::float8 AS average_ms,
                        percentile_cont(0.5) WITHIN GROUP (ORDER BY lifetime_ms) AS median_ms
                    FROM chosen)"
            }
            Dialect::Sqlite => {
                "ranked AS (
                    SELECT lifetime_ms, row_number() OVER (ORDER BY lifetime_ms) AS place, count(*) OVER () AS ended
                    FROM chosen WHERE lifetime_ms IS NOT NULL),
                lifetimes AS (
                    SELECT count(*) AS ended, avg(lifetime_ms) AS average_ms,
                        avg(CASE WHEN place IN ((ended + 1) / 2, (ended + 2) / 2) THEN lifetime_ms END) AS median_ms
                    FROM ranked)"
            }
        };
        let sum = match dialect {
            Dialect::Postgres => "sum(amount_minor)::int8",
            Dialect::Sqlite => "sum(amount_minor)",
        };
        const KIND: &str = "status, step, funnel_id, funnel_version, currency, erased";
        // Writing to a `String` cannot fail.
        let _ = write!(
            statement.text,
            "WITH chosen AS (
                SELECT {KIND}, amount_minor,
                    CASE WHEN erased THEN NULL
                        WHEN status = 'completed' THEN completed_at_ms - created_at_ms
                        WHEN status = 'expired' THEN expires_at_ms - created_at_ms
                    END AS lifetime_ms
                FROM {table}
                WHERE tenant = {tenant} AND created_at_ms >= {from} AND created_at_ms < {before}{funnel}),
             kinds AS (SELECT {KIND}, count(*) AS sessions, {sum} AS amount_minor FROM chosen GROUP BY {KIND}),
             {lifetimes}
             SELECT kinds.*, lifetimes.* FROM kinds CROSS JOIN lifetimes"
        );
        statement
    }
}

/// Reads the rows of [`Statement::search`], whichever database they come from.
macro_rules! found {
    ($rows:expr) => {
        $rows
            .iter()
            .map(|row| {
                let position = $crate::store::Position { session_id: row.try_get(0)?, created_at_ms: row.try_get(1)? };
                let data_key = $crate::encryption::WrappedKey { root_key_id: row.try_get(4)?, sealed: row.try_get(5)? };
                let stored =
                    $crate::store::Stored { version: unsigned(row.try_get(2)?), state: row.try_get(3)?, data_key };
                Ok($crate::store::Found { position, stored })
            })
            .collect::<Result<Vec<_>, sqlx::Error>>()
    };
}
pub(super) use found;

/// Reads the rows of [`Statement::summary`].
macro_rules! summed {
    ($rows:expr) => {
        $rows.iter().try_fold($crate::store::Summary::default(), |mut summary, row| {
            summary.groups.push($crate::store::Group {
                status: row.try_get(0)?,
                step: row.try_get(1)?,
                funnel_id: row.try_get(2)?,
                funnel_version: row.try_get(3)?,
                currency: row.try_get(4)?,
                erased: row.try_get(5)?,
                sessions: unsigned(row.try_get(6)?),
                amount_minor: row.try_get(7)?,
            });
            let (average, median): (Option<f64>, Option<f64>) = (row.try_get(9)?, row.try_get(10)?);
            if let (Some(average_ms), Some(median_ms)) = (average, median) {
                let sessions = unsigned(row.try_get(8)?);
                summary.lifetimes = Some($crate::store::Lifetimes { sessions, average_ms, median_ms });
            }
            Ok::<_, sqlx::Error>(summary)
        })
    };
}
pub(super) use summed;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_ordered_by_creation_and_then_by_id() {
        let at = |created_at_ms, id: &str| Position { created_at_ms, session_id: id.to_owned() };
        assert!(at(1, "a").comes_after(&at(2, "b")) && !at(2, "b").comes_after(&at(1, "a")));
        assert!(at(1, "b").comes_after(&at(1, "a")) && !at(1, "a").comes_after(&at(1, "b")));
        assert!(!at(1, "a").comes_after(&at(1, "a")));
    }

    #[test]
    fn every_status_of_the_core_is_known() {
        use throughline_core::Status::{Completed, Expired, Failed, Pending, Processing};
        assert_eq!([Pending, Processing, Completed, Failed, Expired].map(throughline_core::Status::as_str), STATUSES);
    }
}
