//! Numbers in the store: decimal text, or eight little-endian bytes.
//!
//! A value keeps the form in which `increment` created it. Spin's SQLite host creates eight bytes, and panics if it finds
//! another length. Redis and DynamoDB create decimal text.

/// The largest number. It is far beyond anything that is counted here, and far from an overflow.
pub(crate) const LAST: u64 = 1 << 61;

/// Reads a number. `None` if the value is not a number, or beyond [`LAST`].
pub(crate) fn read(value: &[u8]) -> Option<i64> {
    let number = read_text(value).or_else(|| Some(i64::from_le_bytes(value.try_into().ok()?)))?;
    (number.unsigned_abs() <= LAST).then_some(number)
}

/// Writes `number` in the form of the value `like`.
pub(crate) fn write(like: Option<&[u8]>, number: i64) -> Vec<u8> {
    match like {
        Some(value) if read_text(value).is_none() => number.to_le_bytes().to_vec(),
        _ => number.to_string().into_bytes(),
    }
}

/// Reads decimal text. Eight bytes that look like text are text: as a binary number, they would be beyond [`LAST`].
fn read_text(value: &[u8]) -> Option<i64> {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then_some(())?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_keeps_the_way_in_which_it_was_written() {
        assert_eq!(read(b"12345678"), Some(12_345_678));
        assert_eq!(write(Some(b"12345678"), -9), b"-9");
        let bytes = 255_i64.to_le_bytes();
        assert_eq!(read(&bytes), Some(255));
        assert_eq!(write(Some(&bytes), -258), (-258_i64).to_le_bytes());
        assert_eq!(write(None, 7), b"7");
    }

    #[test]
    fn what_is_no_number_is_none() {
        for value in [&b""[..], b"x", b"-", b"+1", b" 1", b"1234567x1", &[0x7f; 8]] {
            assert_eq!(read(value), None, "{value:?}");
        }
    }
}
