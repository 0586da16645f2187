//! How deep JSON goes, found out without going down into it.

/// Whether more than `limit` arrays and objects lie in each other in `text`, which need not be JSON.
///
/// Most of what is sent has fewer of them in all, which is quick to see.
#[must_use]
pub(crate) fn exceeds(text: &[u8], limit: usize) -> bool {
    // `[` and `{` differ in this one bit.
    let opened = text.iter().filter(|&&byte| byte | 0x20 == b'{').count();
    opened > limit && deepest(text) > limit
}

fn deepest(text: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                // To the end of the string. What is escaped does not end it.
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => drop(bytes.next()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_deep_as_the_limit_is_not_too_deep() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(!exceeds(nested(32).as_bytes(), 32));
        assert!(exceeds(nested(33).as_bytes(), 32));
        assert!(exceeds("{\"a\":".repeat(33).as_bytes(), 32), "nobody waits for its end");
    }

    #[test]
    fn what_lies_side_by_side_or_in_a_text_is_not_deep() {
        let many = format!("[{}]", vec!["{\"a\":[]}"; 100].join(","));
        assert!(!exceeds(many.as_bytes(), 3));
        assert!(exceeds(many.as_bytes(), 2));
        let text = format!("[\"{}\\\"{}\\\\\", {{}}]", "[".repeat(50), "{".repeat(50));
        assert!(!exceeds(text.as_bytes(), 2), "{text}");
        assert!(exceeds(text.as_bytes(), 1));
        assert!(!exceeds(b"]]]]]]\"[[[[[", 4));
    }
}
