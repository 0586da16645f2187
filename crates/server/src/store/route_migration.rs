//! Which side answers on each route of a shop that moves here, and how far both sides agree.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ReadError;
use crate::audit::AuditRecord;
use crate::tenant::TenantId;

/// How many examples of each difference are kept: the latest.
pub const EXAMPLES: u64 = 20;

/// How many routes of a tenant are counted one by one, how many fields of a route, and of all its routes. Names come from answers
/// that buyers may have a part in: without a bound there could be any number.
pub(super) const MAX_ROUTES: i64 = 500;
pub(super) const MAX_FIELDS_OF_ROUTE: i64 = 200;
pub(super) const MAX_FIELDS: i64 = 1_000;

/// As what the others are counted.
pub const OTHERS: &str = "(others)";

/// How a route of a shop that moves here works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum RouteMode {
    /// The legacy systems alone.
    #[default]
    Off,
    /// The legacy systems answer; the unified session is written and read as well, and nobody looks at what comes of it.
    Shadow,
    /// The same, and what both answer is compared.
    Compare,
    /// The unified session answers; the legacy systems are still written and compared, so that there is a way back.
    On,
    /// The unified session alone.
    Only,
}

impl RouteMode {
    /// All of them, in the order in which a route goes through them.
    pub const ALL: [Self; 5] = [Self::Off, Self::Shadow, Self::Compare, Self::On, Self::Only];

    /// As in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Shadow => "shadow",
            Self::Compare => "compare",
            Self::On => "on",
            Self::Only => "only",
        }
    }
}

impl fmt::Display for RouteMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// A text names no mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a mode is off, shadow, compare, on or only")]
pub struct RouteModeError;

impl FromStr for RouteMode {
    type Err = RouteModeError;

    fn from_str(text: &str) -> Result<Self, RouteModeError> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text).ok_or(RouteModeError)
    }
}

/// The mode of one route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModeOfRoute {
    /// The route, as the shop calls it.
    pub route: String,
    /// How it works.
    pub mode: RouteMode,
    /// Since when, in milliseconds since 1970.
    pub changed_at_ms: i64,
}

/// How often what came of requests of which both sides were asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ParityCounts {
    /// Both gave the same.
    pub equal: u64,
    /// They gave something else, in one field or in several.
    pub different: u64,
    /// The legacy side failed, and the unified one did not.
    pub legacy_failed: u64,
    /// The unified side failed, and the legacy one did not.
    pub unified_failed: u64,
}

/// One field in which the sides differed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The field.
    pub field: String,
    /// What the legacy side said, masked.
    pub legacy: String,
    /// What the unified side said, masked.
    pub unified: String,
    /// The session, where it is known.
    pub session_id: Option<String>,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
}

/// What was found on one route since the last time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// Whose route it is.
    pub tenant: TenantId,
    /// The route.
    pub route: String,
    /// How often what came of requests.
    pub counts: ParityCounts,
    /// The differences.
    pub differences: Vec<Difference>,
    /// When it was told, in milliseconds since 1970.
    pub at_ms: i64,
}

/// How far both sides agree on a route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteParity {
    /// The route.
    pub route: String,
    /// Since when it is counted, in milliseconds since 1970.
    pub since_ms: i64,
    /// How often what came of requests.
    pub counts: ParityCounts,
    /// The fields that differed, the most frequent first.
    pub fields: Vec<FieldParity>,
}

/// How often a field differed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldParity {
    /// The field.
    pub field: String,
    /// How often.
    pub times: u64,
    /// When first, in milliseconds since 1970.
    pub first_at_ms: i64,
    /// When last.
    pub last_at_ms: i64,
    /// The latest ones, the last first; at most 20.
    pub examples: Vec<Difference>,
}

/// A place that keeps how a shop moves.
#[async_trait]
pub trait RouteMigrationStore: Send + Sync + fmt::Debug {
    /// Sets the mode of a route; the audit log says so from the same transaction on, unless it was so before.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn set_route_mode(&self, tenant: &TenantId, mode: &ModeOfRoute, audit: AuditRecord) -> Result<(), ReadError>;

    /// The modes that were ever set, in the order of the routes.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn route_modes(&self, tenant: &TenantId) -> Result<Vec<ModeOfRoute>, ReadError>;

    /// Adds to what is counted.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn add_comparison(&self, comparison: &Comparison) -> Result<(), ReadError>;

    /// What was counted, in the order of the routes.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn route_parity(&self, tenant: &TenantId) -> Result<Vec<RouteParity>, ReadError>;

    /// Begins counting again: of one route, or of all where none is given.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn forget_parity(&self, tenant: &TenantId, route: Option<&str>) -> Result<(), ReadError>;
}

/// Puts together what was read from the three tables; each in the order of the routes.
pub(super) fn assembled(
    counts: Vec<RouteParity>,
    fields: Vec<(String, FieldParity)>,
    examples: Vec<(String, Difference)>,
) -> Vec<RouteParity> {
    let mut examples_of: HashMap<(String, String), Vec<Difference>> = HashMap::new();
    for (route, example) in examples {
        examples_of.entry((route, example.field.clone())).or_default().push(example);
    }
    let mut fields_of: HashMap<String, Vec<FieldParity>> = HashMap::new();
    for (route, mut field) in fields {
        let key = (route, field.field.clone());
        field.examples = examples_of.remove(&key).unwrap_or_default();
        field.examples.sort_by_key(|example| std::cmp::Reverse(example.at_ms));
        fields_of.entry(key.0).or_default().push(field);
    }
    let mut routes = counts;
    for parity in &mut routes {
        parity.fields.extend(fields_of.remove(&parity.route).unwrap_or_default());
        parity.fields.sort_by(|one, other| other.times.cmp(&one.times).then_with(|| one.field.cmp(&other.field)));
    }
    routes
}

/// The modes of a tenant's routes.
pub(super) const MODES: &str = "SELECT route, mode, changed_at_ms FROM route_modes WHERE tenant = $1 ORDER BY route";

/// Adds to what is counted of a route, and answers as what.
pub(super) const COUNT: &str =
    "INSERT INTO route_parity (tenant, route, since_ms, equal, different, legacy_failed, unified_failed)
     VALUES ($1, CASE WHEN EXISTS (SELECT 1 FROM route_parity WHERE tenant = $1 AND route = $2)
                        OR (SELECT count(*) FROM route_parity WHERE tenant = $1) < $8
                      THEN $2 ELSE $9 END,
        $3, $4, $5, $6, $7)
     ON CONFLICT (tenant, route) DO UPDATE SET
        equal = route_parity.equal + excluded.equal,
        different = route_parity.different + excluded.different,
        legacy_failed = route_parity.legacy_failed + excluded.legacy_failed,
        unified_failed = route_parity.unified_failed + excluded.unified_failed
     RETURNING route";

/// Counts a difference, and answers how many there were, and as what it is counted.
pub(super) const DIFFER: &str = "INSERT INTO route_differences (tenant, route, field, times, first_at_ms, last_at_ms)
     VALUES ($1, $2,
        CASE WHEN EXISTS (SELECT 1 FROM route_differences WHERE tenant = $1 AND route = $2 AND field = $3)
               OR ((SELECT count(*) FROM route_differences WHERE tenant = $1 AND route = $2) < $5
                   AND (SELECT count(*) FROM route_differences WHERE tenant = $1) < $6)
             THEN $3 ELSE $7 END,
        1, $4, $4)
     ON CONFLICT (tenant, route, field) DO UPDATE SET
        times = route_differences.times + 1, last_at_ms = excluded.last_at_ms
     RETURNING times, field";

/// Keeps an example of a difference.
pub(super) const KEEP: &str =
    "INSERT INTO route_examples (tenant, route, field, place, at_ms, session_id, legacy, unified)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
     ON CONFLICT (tenant, route, field, place) DO UPDATE SET
        at_ms = excluded.at_ms, session_id = excluded.session_id, legacy = excluded.legacy, unified = excluded.unified
     RETURNING place";

/// What is counted of the routes, of their fields, and the examples.
pub(super) const PARITY: [&str; 3] = [
    "SELECT route, since_ms, equal, different, legacy_failed, unified_failed FROM route_parity WHERE tenant = $1
     ORDER BY route",
    "SELECT route, field, times, first_at_ms, last_at_ms FROM route_differences WHERE tenant = $1 ORDER BY route, field",
    "SELECT route, field, at_ms, session_id, legacy, unified FROM route_examples WHERE tenant = $1 ORDER BY route, field",
];

/// Forgets what was counted of a route, or of all.
pub(super) const FORGET: [&str; 3] = [
    "DELETE FROM route_examples WHERE tenant = $1 AND ($2 = '' OR route = $2) RETURNING 1",
    "DELETE FROM route_differences WHERE tenant = $1 AND ($2 = '' OR route = $2) RETURNING 1",
    "DELETE FROM route_parity WHERE tenant = $1 AND ($2 = '' OR route = $2) RETURNING 1",
];

/// Reads the mode of a route out of a row of either database.
macro_rules! mode_in {
    ($row:expr) => {{
        let row = $row;
        let read = || {
            let mode: String = row.try_get(1)?;
            let mode = mode.parse::<$crate::store::RouteMode>();
            Ok::<_, sqlx::Error>($crate::store::ModeOfRoute {
                route: row.try_get(0)?,
                mode: mode.map_err(|error| sqlx::Error::Decode(error.into()))?,
                changed_at_ms: row.try_get(2)?,
            })
        };
        read()
    }};
}
pub(super) use mode_in;

/// Reads the answers to [`PARITY`].
macro_rules! parity_in {
    ($counts:expr, $fields:expr, $examples:expr, $unsigned:expr) => {{
        let read = || {
            let mut routes = Vec::new();
            for row in &$counts {
                let number = |column: usize| row.try_get::<i64, _>(column).map($unsigned);
                routes.push($crate::store::RouteParity {
                    route: row.try_get(0)?,
                    since_ms: row.try_get(1)?,
                    counts: $crate::store::ParityCounts {
                        equal: number(2)?,
                        different: number(3)?,
                        legacy_failed: number(4)?,
                        unified_failed: number(5)?,
                    },
                    fields: Vec::new(),
                });
            }
            let mut fields = Vec::new();
            for row in &$fields {
                fields.push((
                    row.try_get(0)?,
                    $crate::store::FieldParity {
                        field: row.try_get(1)?,
                        times: row.try_get::<i64, _>(2).map($unsigned)?,
                        first_at_ms: row.try_get(3)?,
                        last_at_ms: row.try_get(4)?,
                        examples: Vec::new(),
                    },
                ));
            }
            let mut examples = Vec::new();
            for row in &$examples {
                examples.push((
                    row.try_get(0)?,
                    $crate::store::Difference {
                        field: row.try_get(1)?,
                        at_ms: row.try_get(2)?,
                        session_id: row.try_get(3)?,
                        legacy: row.try_get(4)?,
                        unified: row.try_get(5)?,
                    },
                ));
            }
            Ok::<_, sqlx::Error>($crate::store::route_migration::assembled(routes, fields, examples))
        };
        read()
    }};
}
pub(super) use parity_in;
