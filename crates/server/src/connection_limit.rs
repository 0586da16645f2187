//! How many connections something may hold at the same time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts what is open per key; a key that holds nothing takes no memory.
#[derive(Debug)]
pub struct ConnectionLimit<K: Eq + Hash + Clone> {
    open: Arc<Mutex<HashMap<K, usize>>>,
    most: usize,
}

impl<K: Eq + Hash + Clone> Clone for ConnectionLimit<K> {
    fn clone(&self) -> Self {
        Self { open: Arc::clone(&self.open), most: self.most }
    }
}

/// One open connection; counts as closed when it is dropped.
#[derive(Debug)]
pub struct ConnectionPermit<K: Eq + Hash + Clone> {
    limit: ConnectionLimit<K>,
    key: K,
}

/// The key already holds as many connections as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{most} connections are open already, which is the limit; close one first")]
pub struct TooManyConnections {
    /// The limit.
    pub most: usize,
}

impl<K: Eq + Hash + Clone> ConnectionLimit<K> {
    /// Allows `most` open connections for each key.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { open: Arc::new(Mutex::new(HashMap::new())), most }
    }

    /// Counts one more open connection of `key`.
    ///
    /// # Errors
    /// When the key is at its limit.
    pub fn open(&self, key: K) -> Result<ConnectionPermit<K>, TooManyConnections> {
        // A panic elsewhere cannot leave a count half changed, so a poisoned lock is as good.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(key.clone()).or_insert(0);
        if *count >= self.most {
            if *count == 0 {
                open.remove(&key);
            }
            return Err(TooManyConnections { most: self.most });
        }
        *count += 1;
        drop(open);
        Ok(ConnectionPermit { limit: self.clone(), key })
    }

    /// How many keys hold a connection.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl<K: Eq + Hash + Clone> Drop for ConnectionPermit<K> {
    fn drop(&mut self) {
        let mut open = self.limit.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_at_its_limit_is_refused_until_one_of_its_connections_closes() {
        let limit = ConnectionLimit::new(2);
        let first = limit.open("a").unwrap();
        let _second = limit.open("a").unwrap();
        assert_eq!(limit.open("a").unwrap_err(), TooManyConnections { most: 2 });
        assert!(limit.open("b").is_ok());
        drop(first);
        assert!(limit.open("a").is_ok());
    }

    #[test]
    fn closed_connections_leave_nothing_behind() {
        let limit = ConnectionLimit::new(1);
        drop(limit.open("a").unwrap());
        assert_eq!(limit.keys(), 0);
        assert!(ConnectionLimit::new(0).open("a").is_err());
    }
}
