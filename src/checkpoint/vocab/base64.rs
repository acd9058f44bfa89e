//! Base64, in which tokenizer.json has tables of normalizations.

/// The bytes of a text in base64; `None` if it is none.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.chunks(4) {
        let mut bits = 0u32;
        for (i, b) in group.iter().enumerate() {
            let value = match b {
                b'A'..=b'Z' => b - b'A',
                b'a'..=b'z' => b - b'a' + 26,
                b'0'..=b'9' => b - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits |= u32::from(value) << (26 - 6 * i);
        }
        let whole = group.len() * 6 / 8;
        out.extend(&bits.to_be_bytes()[..whole]);
    }
    (text.len() % 4 != 1).then_some(out)
}

/// Bytes in base64.
pub fn encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().enumerate().map(|(i, &b)| u32::from(b) << (16 - 8 * i)).sum::<u32>();
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= group.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let bytes: Vec<u8> = (0..=255).rev().collect();
        for n in 0..bytes.len() {
            assert_eq!(decode(&encode(&bytes[..n])).as_deref(), Some(&bytes[..n]));
        }
        assert_eq!([&b""[..], b"M", b"Ma", b"Man"].map(encode), ["", "TQ==", "TWE=", "TWFu"]);
        assert_eq!((decode("T"), decode("T=a="), decode("T-a=")), (None, None, None));
    }
}
