//! A map for few entries.

use alloc::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::json::{FromJson, Mismatch, Reader, ToJson, Writer};
use crate::prelude::*;

/// A map as a list that is ordered by its keys.
///
/// For a bounded number of entries only: adding one in front moves all others. `BTreeMap` would do the same, but its code is
/// compiled once more for every type that it holds, ten kilobytes each in the browser's module.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct OrderedMap<K, V>(Vec<(K, V)>);

impl<K, V> Default for OrderedMap<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord, V> OrderedMap<K, V> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of this key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.0.get(self.find(key).ok()?).map(|(_, value)| value)
    }

    /// The value of this key, with which it can be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let index = self.find(key).ok()?;
        self.0.get_mut(index).map(|(_, value)| value)
    }

    /// Sets the value of this key.
    pub fn insert(&mut self, key: K, value: V) {
        match self.find(&key) {
            Ok(index) => self.0[index].1 = value,
            Err(index) => self.0.insert(index, (key, value)),
        }
    }

    /// Removes the entries that don't fit.
    pub fn retain(&mut self, mut fits: impl FnMut(&K, &V) -> bool) {
        self.0.retain(|(key, value)| fits(key, value));
    }

    /// The entries, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// The values, in the order of the keys.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    fn find(&self, key: &K) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.cmp(key))
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for OrderedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        // By way of a tree, so that a long list in the wrong order takes no more time than another.
        Self(BTreeMap::from_iter(entries).into_iter().collect())
    }
}

impl<K: Serialize, V: Serialize> Serialize for OrderedMap<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Deserialize<'de> for OrderedMap<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(deserializer).map(Self::from_iter)
    }
}

impl<K: TryFrom<String, Error: core::fmt::Display> + Ord, V: FromJson> FromJson for OrderedMap<K, V> {
    fn blank() -> Self {
        Self::default()
    }

    fn fill(&mut self, reader: &mut Reader<'_>) -> Result<(), Mismatch> {
        self.0.clear();
        reader.object(&mut |reader, key| {
            let mut read = V::blank();
            read.fill(reader).map_err(|mismatch| mismatch.within(key))?;
            let key = K::try_from(key.to_owned()).map_err(|error| Mismatch::new(error.to_string()).within(key))?;
            self.insert(key, read);
            Ok(())
        })
    }
}

impl<K: Ord + AsRef<str>, V: ToJson> ToJson for OrderedMap<K, V> {
    fn write(&self, out: &mut Writer) {
        out.open('{');
        for (key, value) in self.iter() {
            out.field(key.as_ref(), value);
        }
        out.close('}');
    }

    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}
