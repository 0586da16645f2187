//! A map as an ordered list.

use alloc::borrow::Borrow;
use core::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::json::{FromJson, Mismatch, Reader, ToJson, Writer};
use crate::prelude::*;

/// A map as a list that is ordered by its keys.
///
/// Adding one entry in front moves all others: what comes in great number is collected ([`FromIterator`]) or merged
/// ([`OrderedMap::update`]), which takes no more time in one order than in another. A tree would do the same, but its code
/// is compiled once more for every type that it holds, ten kilobytes each in the browser's module.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct OrderedMap<K, V>(Vec<(K, V)>);

impl<K, V> Default for OrderedMap<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K, V> OrderedMap<K, V> {
    /// No entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entries, in the order of the keys.
    pub fn iter(&self) -> Iter<'_, K, V> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// The keys, in their order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    /// The values, in the order of the keys.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    /// Removes the entries that don't fit.
    pub fn retain(&mut self, mut fits: impl FnMut(&K, &V) -> bool) {
        self.0.retain(|(key, value)| fits(key, value));
    }
}

/// The entries of a map, in the order of the keys.
pub type Iter<'a, K, V> = core::iter::Map<core::slice::Iter<'a, (K, V)>, fn(&'a (K, V)) -> (&'a K, &'a V)>;

impl<K: Ord, V> OrderedMap<K, V> {
    /// The value of this key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.0.get(self.find(key).ok()?).map(|(_, value)| value)
    }

    /// Whether there is an entry of this key.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).is_ok()
    }

    /// The value of this key, with which it can be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
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

    /// Removes the entry of this key; its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.find(key).ok().map(|index| self.0.remove(index).1)
    }

    /// Gives every key of `changes` the value that `change` makes of the one that it has here and the one that it has there.
    pub fn update(&mut self, changes: &Self, change: &mut dyn FnMut(Option<V>, &V) -> Option<V>)
    where
        K: Clone,
    {
        let mut before = core::mem::take(&mut self.0).into_iter().peekable();
        for (key, there) in &changes.0 {
            while let Some(entry) = before.next_if(|(known, _)| known < key) {
                self.0.push(entry);
            }
            let here = before.next_if(|(known, _)| known == key).map(|(_, value)| value);
            if let Some(value) = change(here, there) {
                self.0.push((key.clone(), value));
            }
        }
        self.0.extend(before);
    }

    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        self.0.binary_search_by(|(known, _)| known.borrow().cmp(key))
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for OrderedMap<K, V> {
    /// Of several entries with one key the last one counts.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        Self(in_order(entries.into_iter().collect()))
    }
}

/// The entries in the order of their keys, each key once. By hand: what the standard library sorts with is as large as half of
/// the rules.
fn in_order<K: Ord, V>(mut entries: Vec<(K, V)>) -> Vec<(K, V)> {
    // As they were written by either end of the protocol.
    if entries.is_sorted_by(|(a, _), (b, _)| a < b) {
        return entries;
    }
    let second = in_order(entries.split_off(entries.len() / 2));
    let mut first = in_order(entries).into_iter().peekable();
    let mut merged = Vec::new();
    for entry in second {
        while let Some(earlier) = first.next_if(|(key, _)| *key < entry.0) {
            merged.push(earlier);
        }
        // The later one counts.
        first.next_if(|(key, _)| *key == entry.0);
        merged.push(entry);
    }
    merged.extend(first);
    merged
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for OrderedMap<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        Self::from_iter(entries)
    }
}

impl<K, V> IntoIterator for OrderedMap<K, V> {
    type Item = (K, V);
    type IntoIter = alloc::vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, K, V> IntoIterator for &'a OrderedMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K: Serialize, V: Serialize> Serialize for OrderedMap<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self)
    }
}

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Deserialize<'de> for OrderedMap<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<K, V>(core::marker::PhantomData<(K, V)>);

        impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Visitor<'de> for Entries<K, V> {
            type Value = OrderedMap<K, V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = access.next_entry()? {
                    entries.push(entry);
                }
                Ok(entries.into_iter().collect())
            }
        }

        deserializer.deserialize_map(Entries(core::marker::PhantomData))
    }
}

impl<K: TryFrom<String> + Ord, V: FromJson> FromJson for OrderedMap<K, V> {
    fn blank() -> Self {
        Self::default()
    }

    fn fill(&mut self, reader: &mut Reader<'_>) -> Result<(), Mismatch> {
        self.0.clear();
        reader.object(&mut |reader, key| {
            let mut read = V::blank();
            read.fill(reader).map_err(|mismatch| mismatch.within(key))?;
            // Nothing that is stored or sent has a key that is none.
            let key = K::try_from(key.to_owned()).map_err(|_| Mismatch::new("is not possible here").within(key))?;
            // They come in order.
            match self.0.last() {
                Some((last, _)) if *last >= key => self.insert(key, read),
                _ => self.0.push((key, read)),
            }
            Ok(())
        })
    }
}

impl<K: Ord + AsRef<str>, V: ToJson> ToJson for OrderedMap<K, V> {
    fn write(&self, out: &mut Writer) {
        out.open("{");
        for (key, value) in self.iter() {
            out.entry(key.as_ref(), value);
        }
        out.close("}");
    }

    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}
