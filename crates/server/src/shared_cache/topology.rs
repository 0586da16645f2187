//! Which node serves which partition.
//!
//! The crate's own cluster client is not used: while it reconnects to one node or asks for the
//! slots again, all calls of a connection wait, and a node that hangs takes the others with it.
//! Here a partition has exactly one slot and never needs two nodes, so all that is left of
//! routing is this map.

use std::sync::Arc;

use redis::Value;

use super::node::Node;
use super::partition::{PARTITIONS, Partition};

/// The nodes, and who serves what. Alone, one node serves everything.
pub(super) struct Topology {
    pub(super) nodes: Vec<Arc<Node>>,
    /// The index of the node that serves each partition.
    served_by: Vec<Option<usize>>,
}

impl Topology {
    /// Everything is asked of the first node, until it says that others have it.
    pub(super) fn unknown(nodes: Vec<Arc<Node>>) -> Self {
        Self { nodes, served_by: vec![Some(0); PARTITIONS] }
    }

    pub(super) fn new(nodes: Vec<Arc<Node>>, served_by: Vec<Option<usize>>) -> Self {
        Self { nodes, served_by }
    }

    pub(super) fn node_of(&self, partition: Partition) -> Option<&Arc<Node>> {
        self.served_by.get(partition.index()).copied().flatten().and_then(|index| self.nodes.get(index))
    }
}

/// What a node of a cluster says about who serves the partitions.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Served {
    /// The primaries, by host and port.
    pub(super) addresses: Vec<(String, u16)>,
    /// The index of the address that serves each partition.
    pub(super) served_by: Vec<Option<usize>>,
}

/// Reads the answer to `CLUSTER SLOTS`: ranges of slots, each with its primary first. A node
/// that does not know its own name is meant by the one that it was asked under.
pub(super) fn read_slots(answer: Value, asked_host: &str) -> Option<Served> {
    let Value::Array(ranges) = answer else { return None };
    let slots: Vec<u16> = Partition::all().map(slot_of).collect();
    let mut served = Served { addresses: Vec::new(), served_by: vec![None; PARTITIONS] };
    for range in ranges {
        let Value::Array(range) = range else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(primary), ..] = range.as_slice() else { return None };
        let host = match primary.first()? {
            Value::BulkString(host) if !host.is_empty() => String::from_utf8(host.clone()).ok()?,
            Value::BulkString(_) | Value::Nil => asked_host.to_owned(),
            _ => return None,
        };
        let Some(Value::Int(port)) = primary.get(1) else { return None };
        let address = (host, u16::try_from(*port).ok()?);
        if address.0 == "?" {
            continue;
        }
        let known = served.addresses.iter().position(|known| *known == address);
        let index = known.unwrap_or_else(|| {
            served.addresses.push(address);
            served.addresses.len() - 1
        });
        for (slot, node) in slots.iter().zip(&mut served.served_by) {
            if (*first..=*last).contains(&i64::from(*slot)) {
                *node = Some(index);
            }
        }
    }
    Some(served)
}

/// The slot of the partition's hash tag: CRC-16 (XMODEM) modulo 16384, as the cluster specification says.
fn slot_of(partition: Partition) -> u16 {
    crc16(format!("tl{partition}").as_bytes()) % 16384
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(
            crc ^ (u16::from(*byte) << 8),
            |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert!(Partition::all().all(|partition| slot_of(partition) < 16384));
    }

    fn range(first: i64, last: i64, host: Value, port: i64) -> Value {
        let primary = Value::Array(vec![host, Value::Int(port), Value::BulkString(b"id".to_vec())]);
        Value::Array(vec![Value::Int(first), Value::Int(last), primary])
    }

    #[test]
    fn every_partition_finds_its_node() {
        let host = |name: &str| Value::BulkString(name.as_bytes().to_vec());
        let ranges =
            [range(0, 8000, host("a"), 1), range(8001, 12000, Value::Nil, 2), range(12001, 16383, host("a"), 1)];
        let served = read_slots(Value::Array(ranges.to_vec()), "asked").expect("it is an answer");
        assert_eq!(served.addresses, [("a".to_owned(), 1), ("asked".to_owned(), 2)]);
        for (partition, node) in Partition::all().zip(&served.served_by) {
            let expected = usize::from((8001..=12000).contains(&slot_of(partition)));
            assert_eq!(*node, Some(expected), "{partition}");
        }
        let unknown = read_slots(Value::Array(vec![range(0, 16383, host("?"), 1)]), "asked").expect("it is an answer");
        assert!(unknown.served_by.iter().all(Option::is_none));
        assert_eq!(read_slots(Value::Okay, "asked"), None);
        assert_eq!(read_slots(Value::Array(vec![Value::Int(1)]), "asked"), None);
    }
}
