//! The form of a blob in Redis: recognisable, and damage to it is found.
//!
//! ```text
//! 'T' 'L'  format(1)  kind(1)  crc32(4, little endian)  blob
//! ```
//!
//! The checksum covers the session, its epoch and the version too, so that a blob which is
//! whole but in the wrong place is as damaged as one with a flipped bit.

use bytes::Bytes;

const MAGIC: [u8; 2] = *b"TL";
const FORMAT: u8 = 1;
const HEADER: usize = 8;

/// What a blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Snapshot = b's' as isize,
    Entry = b'e' as isize,
}

/// Where a blob belongs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) member: &'a str,
    pub(super) epoch: u64,
    pub(super) version: u64,
}

impl Place<'_> {
    fn checksum(self, kind: Kind, blob: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&[kind as u8]);
        hasher.update(&self.epoch.to_le_bytes());
        hasher.update(&self.version.to_le_bytes());
        hasher.update(self.member.as_bytes());
        hasher.update(blob);
        hasher.finalize()
    }
}

/// The bytes to store for `blob`.
pub(super) fn seal(kind: Kind, place: Place<'_>, blob: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(HEADER + blob.len());
    sealed.extend_from_slice(&MAGIC);
    sealed.extend_from_slice(&[FORMAT, kind as u8]);
    sealed.extend_from_slice(&place.checksum(kind, blob).to_le_bytes());
    sealed.extend_from_slice(blob);
    sealed
}

/// The blob in `sealed`, unless it is damaged or not ours.
pub(super) fn open(kind: Kind, place: Place<'_>, sealed: Vec<u8>) -> Option<Bytes> {
    let (header, blob) = sealed.split_at_checked(HEADER)?;
    let expected = [MAGIC[0], MAGIC[1], FORMAT, kind as u8];
    let (head, checksum) = header.split_at(4);
    let intact = head == expected && checksum == place.checksum(kind, blob).to_le_bytes();
    intact.then(|| Bytes::from(sealed).slice(HEADER..))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'static> = Place { member: "default/ws_1", epoch: 7, version: 3 };

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let sealed = seal(Kind::Snapshot, PLACE, b"state");
        assert_eq!(open(Kind::Snapshot, PLACE, sealed.clone()), Some(Bytes::from_static(b"state")));
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(Kind::Snapshot, PLACE, damaged), None, "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert_eq!(open(Kind::Snapshot, PLACE, sealed[..length].to_vec()), None, "{length} bytes");
        }
    }

    #[test]
    fn a_blob_in_the_wrong_place_is_not_taken() {
        let sealed = seal(Kind::Entry, PLACE, b"entry");
        assert_eq!(open(Kind::Snapshot, PLACE, sealed.clone()), None);
        assert_eq!(open(Kind::Entry, Place { version: 4, ..PLACE }, sealed.clone()), None);
        assert_eq!(open(Kind::Entry, Place { epoch: 8, ..PLACE }, sealed.clone()), None);
        assert_eq!(open(Kind::Entry, Place { member: "default/ws_2", ..PLACE }, sealed), None);
    }
}
