//! Changes to inputs by one number: the same number gives the same change again.

/// `SplitMix64`: a small generator of random numbers with a seed.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> Option<&'a T> {
        choices.get(self.below(choices.len())).copied()
    }
}

/// What breaks readers more often than chance would have it.
const EDGES: &[&str] = &[
    "0",
    "-1",
    "1.5",
    "1e999",
    "-0",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "null",
    "true",
    "{}",
    "[]",
    "\"\"",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "\u{feff}",
    "é",
    "İ",
    "\u{202e}",
    "\n",
    "\t",
    ",",
    ":",
    "\"",
    "\\",
    "[",
    "]",
    "{",
    "}",
    "=",
    "*",
    "%",
    "..",
    "1970-01-01T00:00:00.000Z",
    "9999-12-31T23:59:59.999Z",
    "+292278994-08-17T07:12:55.807Z",
    "0000-00-00T00:00:00.000Z",
];

/// The longest input that a change makes.
const LONGEST: usize = 64 * 1024;

/// One of `inputs`, changed in one to four places; `words` are what may be put in.
#[must_use]
pub fn mutant(inputs: &[Vec<u8>], words: &[Vec<u8>], seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed);
    let all: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    let mut bytes = dice.pick(&all).unwrap_or_default().to_vec();
    for _ in 0..=dice.below(4) {
        change(&mut bytes, &all, words, &mut dice);
    }
    bytes.truncate(LONGEST);
    bytes
}

fn change(bytes: &mut Vec<u8>, inputs: &[&[u8]], words: &[Vec<u8>], dice: &mut Dice) {
    let at = dice.below(bytes.len() + 1);
    let end = at + dice.below((bytes.len() - at).min(64) + 1);
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    match dice.below(9) {
        0 => drop(bytes.drain(at..end)),
        1 => bytes.truncate(at),
        2 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << dice.below(8);
            }
        }
        3 => {
            let edge = dice.pick(EDGES).unwrap_or_default();
            bytes.splice(at..end, edge.bytes());
        }
        // A word for a word: the form stays, the sense changes.
        4 | 5 => {
            let (from, to) = word_at(bytes, at);
            let edge = dice.pick(EDGES).unwrap_or_default().as_bytes();
            let word = if dice.below(3) == 0 { edge } else { dice.pick(&words).unwrap_or_default() };
            bytes.splice(from..to, word.iter().copied());
        }
        6 => {
            let copy = bytes[at..end].to_vec();
            let times = if dice.below(20) == 0 { 1 + dice.below(2000) } else { 1 + dice.below(3) };
            bytes.splice(at..at, copy.repeat(times).into_iter().take(LONGEST));
        }
        7 => {
            let other = dice.pick(inputs).unwrap_or_default();
            let from = dice.below(other.len() + 1);
            let to = from + dice.below(other.len() - from + 1);
            bytes.splice(at..end, other[from..to].iter().copied());
        }
        _ => {
            // Two lines change places.
            let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
            let (one, other) = (dice.below(lines.len()), dice.below(lines.len()));
            lines.swap(one, other);
            *bytes = lines.join(&b'\n');
        }
    }
}

/// Where the word around this place begins and ends.
fn word_at(bytes: &[u8], at: usize) -> (usize, usize) {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let from = bytes[..at].iter().rposition(|byte| !is_part(byte)).map_or(0, |index| index + 1);
    let to = bytes[at..].iter().position(|byte| !is_part(byte)).map_or(bytes.len(), |index| at + index);
    (from, to)
}
