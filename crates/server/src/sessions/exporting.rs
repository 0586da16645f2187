//! Sessions read from the database page by page, by a process that hosts none.

use std::sync::Arc;

use throughline_core::State;

use super::stored::{Unreadable, open_session};
use crate::keys::KeyRing;
use crate::store::{Position, Search, SessionKey, Store, SurveyError, TimeRange};
use crate::tenant::TenantId;

/// How many sessions are in memory at a time.
const PAGE: u32 = 500;

/// Reads the sessions of a tenant, the latest one first.
#[derive(Debug)]
pub(crate) struct SessionExporter {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keys: KeyRing,
    pub(crate) tenant: TenantId,
    /// Only those that changed then.
    pub(crate) updated: TimeRange,
}

/// Why sessions can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    #[error(transparent)]
    Survey(#[from] SurveyError),
    #[error("the session {id} can't be read")]
    Unreadable {
        id: String,
        #[source]
        source: Unreadable,
    },
}

impl SessionExporter {
    /// The sessions that come after this place, and where it goes on after them; nothing more where that is missing.
    pub(crate) async fn page(&self, after: Option<Position>) -> Result<(Vec<State>, Option<Position>), ExportError> {
        let search = Search {
            tenant: self.tenant.clone(),
            email_digests: Vec::new(),
            statuses: Vec::new(),
            step: None,
            funnel_id: None,
            created: TimeRange::default(),
            updated: self.updated,
            after,
            limit: PAGE,
        };
        let found = self.store.search(&search).await?;
        let next = (found.len() == PAGE as usize).then(|| found.last().map(|found| found.position.clone())).flatten();
        let mut states = Vec::with_capacity(found.len());
        for found in found {
            let id = found.position.session_id;
            let key = SessionKey { tenant: self.tenant.clone(), session_id: id.clone() };
            let opened = open_session(&key, found.stored, &self.keys);
            let (state, _) = opened.map_err(|source| ExportError::Unreadable { id, source })?;
            states.push(state);
        }
        Ok((states, next))
    }
}
