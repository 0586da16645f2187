//! How a shop moves, in PostgreSQL.

use async_trait::async_trait;
use sqlx::{Row as _, query};

use super::postgres::{PostgresStore, unreadable};
use super::postgres_batch::{signed, unsigned};
use super::route_migration::{
    COUNT, Comparison, DIFFER, EXAMPLES, FORGET, KEEP, MAX_FIELDS, MAX_FIELDS_OF_ROUTE, MAX_ROUTES, MODES, ModeOfRoute,
    OTHERS, PARITY, ParityCounts, RouteMigrationStore, RouteParity, mode_in, parity_in,
};
use super::{ReadError, StoreFault};
use crate::audit::AuditRecord;
use crate::tenant::TenantId;

#[async_trait]
impl RouteMigrationStore for PostgresStore {
    async fn set_route_mode(&self, tenant: &TenantId, mode: &ModeOfRoute, audit: AuditRecord) -> Result<(), ReadError> {
        const SET: &str = "WITH changed AS (
                INSERT INTO route_modes (tenant, route, mode, changed_at_ms) VALUES ($1, $2, $3, $4)
                ON CONFLICT (tenant, route) DO UPDATE SET mode = excluded.mode, changed_at_ms = excluded.changed_at_ms
                WHERE route_modes.mode <> excluded.mode
                RETURNING 1)
             INSERT INTO audit_log (tenant, position, body, mac, key_id)
             SELECT $5, nextval('audit_positions'), $6, $7, $8 FROM changed RETURNING 1";
        let set = || {
            query(SET)
                .bind(tenant.as_str())
                .bind(&mode.route)
                .bind(mode.mode.as_str())
                .bind(mode.changed_at_ms)
                .bind(audit.tenant.as_str())
                .bind(&audit.body)
                .bind(audit.mac.as_slice())
                .bind(&audit.key_id)
        };
        self.pool.rows("setting the mode of a route", set).await.map(drop)
    }

    async fn route_modes(&self, tenant: &TenantId) -> Result<Vec<ModeOfRoute>, ReadError> {
        const DURING: &str = "reading the modes of routes";
        let rows = self.pool.rows(DURING, || query(MODES).bind(tenant.as_str())).await?;
        rows.iter().map(|row| mode_in!(row)).collect::<Result<_, _>>().map_err(unreadable(DURING))
    }

    async fn add_comparison(&self, comparison: &Comparison) -> Result<(), ReadError> {
        const DURING: &str = "counting what routes answer";
        let Comparison { tenant, route, counts, differences, at_ms } = comparison;
        let ParityCounts { equal, different, legacy_failed, unified_failed } = *counts;
        let count = || {
            let count = query(COUNT).bind(tenant.as_str()).bind(route).bind(at_ms);
            let count = count.bind(signed(equal)).bind(signed(different));
            count.bind(signed(legacy_failed)).bind(signed(unified_failed)).bind(MAX_ROUTES).bind(OTHERS)
        };
        let silent = || ReadError::Unavailable { fault: StoreFault::new(DURING, "it gave no answer") };
        let counted = self.pool.rows(DURING, count).await?;
        let route: String = counted.first().ok_or_else(silent)?.try_get(0).map_err(unreadable(DURING))?;
        for difference in differences {
            let of = || {
                let of = query(DIFFER).bind(tenant.as_str()).bind(&route).bind(&difference.field);
                of.bind(difference.at_ms).bind(MAX_FIELDS_OF_ROUTE).bind(MAX_FIELDS).bind(OTHERS)
            };
            let counted = self.pool.rows(DURING, of).await?;
            let row = counted.first().ok_or_else(silent)?;
            let times: i64 = row.try_get(0).map_err(unreadable(DURING))?;
            let field: String = row.try_get(1).map_err(unreadable(DURING))?;
            let place = signed(unsigned(times) % EXAMPLES);
            let keep = || {
                let keep = query(KEEP).bind(tenant.as_str()).bind(&route).bind(&field).bind(place);
                let keep = keep.bind(difference.at_ms).bind(&difference.session_id);
                keep.bind(&difference.legacy).bind(&difference.unified)
            };
            self.pool.rows(DURING, keep).await?;
        }
        Ok(())
    }

    async fn route_parity(&self, tenant: &TenantId) -> Result<Vec<RouteParity>, ReadError> {
        const DURING: &str = "reading what routes answered";
        let [counts, fields, examples] = PARITY;
        let counts = self.pool.rows(DURING, || query(counts).bind(tenant.as_str())).await?;
        let fields = self.pool.rows(DURING, || query(fields).bind(tenant.as_str())).await?;
        let examples = self.pool.rows(DURING, || query(examples).bind(tenant.as_str())).await?;
        parity_in!(counts, fields, examples, unsigned).map_err(unreadable(DURING))
    }

    async fn forget_parity(&self, tenant: &TenantId, route: Option<&str>) -> Result<(), ReadError> {
        for forget in FORGET {
            let forget = || query(forget).bind(tenant.as_str()).bind(route.unwrap_or_default());
            self.pool.rows("forgetting what routes answered", forget).await?;
        }
        Ok(())
    }
}
