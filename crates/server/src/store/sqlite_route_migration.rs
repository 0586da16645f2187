//! How a shop moves, in a SQLite file.

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Row as _, query};

use super::route_migration::{
    COUNT, Comparison, DIFFER, EXAMPLES, FORGET, KEEP, MAX_FIELDS, MAX_FIELDS_OF_ROUTE, MAX_ROUTES, MODES, ModeOfRoute,
    OTHERS, PARITY, ParityCounts, RouteMigrationStore, RouteParity, mode_in, parity_in,
};
use super::sqlite::{SqliteStore, bounded, read_error, signed, unsigned};
use super::sqlite_jobs::{Tell, write_audit};
use super::sqlite_writer::{Verdict, WriteJob};
use super::{ReadError, StoreFault};
use crate::audit::AuditRecord;
use crate::tenant::TenantId;

#[async_trait]
impl RouteMigrationStore for SqliteStore {
    async fn set_route_mode(&self, tenant: &TenantId, mode: &ModeOfRoute, audit: AuditRecord) -> Result<(), ReadError> {
        let (tenant, mode) = (tenant.clone(), mode.clone());
        self.change(RouteMigrationChange::Mode { tenant, mode, audit }).await
    }

    async fn route_modes(&self, tenant: &TenantId) -> Result<Vec<ModeOfRoute>, ReadError> {
        const DURING: &str = "reading the modes of routes";
        let rows = bounded(DURING, query(MODES).bind(tenant.as_str()).fetch_all(&self.readers)).await?;
        rows.iter().map(|row| mode_in!(row)).collect::<Result<_, _>>().map_err(|error| read_error(DURING, error))
    }

    async fn add_comparison(&self, comparison: &Comparison) -> Result<(), ReadError> {
        self.change(RouteMigrationChange::Comparison(comparison.clone())).await
    }

    async fn route_parity(&self, tenant: &TenantId) -> Result<Vec<RouteParity>, ReadError> {
        const DURING: &str = "reading what routes answered";
        let [counts, fields, examples] = PARITY;
        let counts = bounded(DURING, query(counts).bind(tenant.as_str()).fetch_all(&self.readers)).await?;
        let fields = bounded(DURING, query(fields).bind(tenant.as_str()).fetch_all(&self.readers)).await?;
        let examples = bounded(DURING, query(examples).bind(tenant.as_str()).fetch_all(&self.readers)).await?;
        parity_in!(counts, fields, examples, unsigned).map_err(|error| read_error(DURING, error))
    }

    async fn forget_parity(&self, tenant: &TenantId, route: Option<&str>) -> Result<(), ReadError> {
        let (tenant, route) = (tenant.clone(), route.map(str::to_owned));
        self.change(RouteMigrationChange::Forget { tenant, route }).await
    }
}

impl SqliteStore {
    async fn change(&self, change: RouteMigrationChange) -> Result<(), ReadError> {
        self.answer(|tell| Box::new(RouteMigrationJob { change, tell })).await.map_err(ReadError::from)
    }
}

/// What is written down.
#[derive(Debug)]
enum RouteMigrationChange {
    Mode { tenant: TenantId, mode: ModeOfRoute, audit: AuditRecord },
    Comparison(Comparison),
    Forget { tenant: TenantId, route: Option<String> },
}

/// Writes it down.
#[derive(Debug)]
struct RouteMigrationJob {
    change: RouteMigrationChange,
    tell: Tell<()>,
}

#[async_trait]
impl WriteJob for RouteMigrationJob {
    async fn apply(&mut self, connection: &mut SqliteConnection) -> Result<Verdict, sqlx::Error> {
        match &self.change {
            RouteMigrationChange::Mode { tenant, mode, audit } => set_mode(connection, tenant, mode, audit).await?,
            RouteMigrationChange::Comparison(comparison) => add_comparison(connection, comparison).await?,
            RouteMigrationChange::Forget { tenant, route } => {
                for forget in FORGET {
                    let forget = query(forget).bind(tenant.as_str()).bind(route.as_deref().unwrap_or_default());
                    forget.execute(&mut *connection).await?;
                }
            }
        }
        Ok(Verdict::Keep)
    }

    fn done(self: Box<Self>) {
        let _ = self.tell.send(Ok(()));
    }

    fn failed(self: Box<Self>, fault: StoreFault) {
        let _ = self.tell.send(Err(fault));
    }
}

async fn set_mode(
    connection: &mut SqliteConnection,
    tenant: &TenantId,
    mode: &ModeOfRoute,
    audit: &AuditRecord,
) -> Result<(), sqlx::Error> {
    let set = query(
        "INSERT INTO route_modes (tenant, route, mode, changed_at_ms) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (tenant, route) DO UPDATE SET mode = excluded.mode, changed_at_ms = excluded.changed_at_ms
         WHERE route_modes.mode <> excluded.mode",
    );
    let set = set.bind(tenant.as_str()).bind(&mode.route).bind(mode.mode.as_str()).bind(mode.changed_at_ms);
    if set.execute(&mut *connection).await?.rows_affected() > 0 {
        write_audit(connection, std::slice::from_ref(audit)).await?;
    }
    Ok(())
}

async fn add_comparison(connection: &mut SqliteConnection, comparison: &Comparison) -> Result<(), sqlx::Error> {
    let Comparison { tenant, route, counts, differences, at_ms } = comparison;
    let ParityCounts { equal, different, legacy_failed, unified_failed } = *counts;
    let count = query(COUNT).bind(tenant.as_str()).bind(route).bind(at_ms).bind(signed(equal)).bind(signed(different));
    let count = count.bind(signed(legacy_failed)).bind(signed(unified_failed)).bind(MAX_ROUTES).bind(OTHERS);
    let route: String = count.fetch_one(&mut *connection).await?.try_get(0)?;
    for difference in differences {
        let differ = query(DIFFER).bind(tenant.as_str()).bind(&route).bind(&difference.field).bind(difference.at_ms);
        let differ = differ.bind(MAX_FIELDS_OF_ROUTE).bind(MAX_FIELDS).bind(OTHERS);
        let counted = differ.fetch_one(&mut *connection).await?;
        let (times, field): (i64, String) = (counted.try_get(0)?, counted.try_get(1)?);
        let keep = query(KEEP).bind(tenant.as_str()).bind(&route).bind(&field);
        let keep = keep.bind(signed(unsigned(times) % EXAMPLES)).bind(difference.at_ms).bind(&difference.session_id);
        keep.bind(&difference.legacy).bind(&difference.unified).execute(&mut *connection).await?;
    }
    Ok(())
}
