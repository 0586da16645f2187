//! What a partition's channel carries.
//!
//! ```text
//! TL1 <incarnation> <number> <time in microseconds>\n      written by Redis, see `prelude.lua`
//! node(16)  kind(1)  length(2, little endian)  member  payload
//! ```

use bytes::Bytes;

use super::partition::{member, session_of_member};
use crate::store::SessionKey;

/// Which server process sent a message.
pub(super) type NodeId = [u8; 16];

const HEARTBEAT: u8 = 0;
const MESSAGE: u8 = 1;

/// A message as it was received.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Envelope {
    /// Which life of the counter `number` belongs to.
    pub(super) incarnation: u64,
    /// Its number within the partition, without gaps from 1.
    pub(super) number: u64,
    /// When Redis sent it, in microseconds since 1970.
    pub(super) sent_us: u64,
    pub(super) node: NodeId,
    /// `None` for a heartbeat.
    pub(super) message: Option<(SessionKey, Bytes)>,
}

/// The body of a heartbeat.
pub(super) fn heartbeat(node: NodeId) -> Vec<u8> {
    let mut body = node.to_vec();
    body.push(HEARTBEAT);
    body
}

/// The body of a message about a session, unless its id is too long to be one.
pub(super) fn message(node: NodeId, key: &SessionKey, payload: &[u8]) -> Option<Vec<u8>> {
    let member = member(key);
    let length = u16::try_from(member.len()).ok()?;
    let mut body = Vec::with_capacity(19 + member.len() + payload.len());
    body.extend_from_slice(&node);
    body.push(MESSAGE);
    body.extend_from_slice(&length.to_le_bytes());
    body.extend_from_slice(member.as_bytes());
    body.extend_from_slice(payload);
    Some(body)
}

/// Reads what a channel carried; `None` if it is not from one of us.
pub(super) fn open(received: Vec<u8>) -> Option<Envelope> {
    let received = Bytes::from(received);
    let end = received.iter().position(|byte| *byte == b'\n')?;
    let header = std::str::from_utf8(&received[..end]).ok()?;
    let mut numbers = header.strip_prefix("TL1 ")?.split(' ').map(str::parse::<u64>);
    let (Some(Ok(incarnation)), Some(Ok(number)), Some(Ok(sent_us)), None) =
        (numbers.next(), numbers.next(), numbers.next(), numbers.next())
    else {
        return None;
    };
    let body = received.slice(end + 1..);
    let (node, rest) = body.split_first_chunk::<16>()?;
    let message = match rest.split_first()? {
        (&HEARTBEAT, []) => None,
        (&MESSAGE, rest) => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            let (member, payload) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
            Some((session_of_member(member)?, body.slice_ref(payload)))
        }
        _ => return None,
    };
    Some(Envelope { incarnation, number, sent_us, node: *node, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = [7; 16];

    fn sent(body: &[u8]) -> Vec<u8> {
        [b"TL1 5 6 1700000000000000\n", body].concat()
    }

    #[test]
    fn what_was_sent_is_what_is_received() {
        let key = SessionKey { tenant: "shop".parse().expect("a name"), session_id: "ws_1".to_owned() };
        let payload = b"\n\0any bytes";
        let envelope = open(sent(&message(NODE, &key, payload).expect("a short id"))).expect("an envelope");
        let expected = Envelope {
            incarnation: 5,
            number: 6,
            sent_us: 1_700_000_000_000_000,
            node: NODE,
            message: Some((key, Bytes::from_static(payload))),
        };
        assert_eq!(envelope, expected);
        assert_eq!(open(sent(&heartbeat(NODE))).map(|envelope| envelope.message), Some(None));
    }

    #[test]
    fn whatever_else_is_on_the_channel_is_recognised() {
        let key = SessionKey { tenant: "shop".parse().expect("a name"), session_id: "ws_1".to_owned() };
        let whole = sent(&message(NODE, &key, b"").expect("a short id"));
        for length in 0..whole.len() {
            assert_eq!(open(whole[..length].to_vec()), None, "{length} bytes");
        }
        for foreign in ["", "hello\n", "TL1 1 2\nx", "TL1 1 2 3 4\nx", "TL1 a b c\nx", "TL2 1 2 3\nx"] {
            assert_eq!(open([foreign.as_bytes(), &heartbeat(NODE)].concat()), None, "{foreign}");
        }
        let too_long = SessionKey { session_id: "x".repeat(70_000), ..key };
        assert_eq!(message(NODE, &too_long, b""), None);
    }
}
