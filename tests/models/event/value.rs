//! The meaning of a value in the store.

use crate::replay::Value;

pub fn number(value: &Value) -> i64 {
    let value = value.as_deref().unwrap_or(b"0");
    match <[u8; 8]>::try_from(value) {
        Ok(bytes) => i64::from_le_bytes(bytes),
        Err(_) => {
            let text = std::str::from_utf8(value).unwrap();
            let number = text.split_once('.').map_or(text, |(number, _)| number);
            number.parse().unwrap()
        }
    }
}

/// The generation. The tag above its 40 bits is left out.
pub fn generation(value: &Value) -> i64 {
    number(value).abs() % (1 << 40)
}

pub fn is_set(value: &Value) -> bool {
    number(value).rem_euclid(2) == 1
}

pub fn exists(value: &Value) -> bool {
    number(value) > 0
}

pub fn text(number: i64) -> Vec<u8> {
    number.to_string().into_bytes()
}
