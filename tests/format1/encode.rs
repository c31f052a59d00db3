//! Writes jsonb as jsonb_util.c does; checked against PostgreSQL's own bytes above.

use super::document::{Json, decimal, members};

const SCALAR_ARRAY: u32 = 0x5000_0000;
const ARRAY: u32 = 0x4000_0000;
const OBJECT: u32 = 0x2000_0000;
const HAS_OFFSET: u32 = 0x8000_0000;

pub fn jsonb(document: &Json) -> Vec<u8> {
    if document.is_container() {
        child(document).1
    } else {
        container(SCALAR_ARRAY, 1, vec![child(document)])
    }
}

fn child(json: &Json) -> (u32, Vec<u8>) {
    match json {
        Json::String(text) => (0, text.as_bytes().to_vec()),
        Json::Number(text) => (0x1000_0000, numeric(text)),
        Json::Bool(false) => (0x2000_0000, vec![]),
        Json::Bool(true) => (0x3000_0000, vec![]),
        Json::Null => (0x4000_0000, vec![]),
        Json::Array(elements) => {
            (0x5000_0000, container(ARRAY, elements.len(), elements.iter().map(child).collect()))
        }
        Json::Object(object) => {
            let members = members(object);
            let keys = members.iter().map(|(key, _)| (0, key.as_bytes().to_vec()));
            let children = keys.chain(members.iter().map(|(_, value)| child(value))).collect();
            (0x5000_0000, container(OBJECT, members.len(), children))
        }
    }
}

fn container(kind: u32, count: usize, children: Vec<(u32, Vec<u8>)>) -> Vec<u8> {
    let mut out = (kind | count as u32).to_le_bytes().to_vec();
    let mut data = Vec::new();
    for (at, (kind, bytes)) in children.into_iter().enumerate() {
        let start = data.len();
        if kind == 0x1000_0000 || kind == 0x5000_0000 {
            data.resize(start.next_multiple_of(4), 0);
        }
        data.extend(bytes);
        // Every 32nd entry holds where its data ends instead of how long it is.
        let number = if at % 32 == 0 { HAS_OFFSET | data.len() as u32 } else { (data.len() - start) as u32 };
        out.extend((kind | number).to_le_bytes());
    }
    out.extend(data);
    out
}

fn numeric(text: &str) -> Vec<u8> {
    let (negative, exponent, digits) = decimal(text);
    let (weight, groups) = base_10000(exponent, &digits);
    let scale = scale(text);
    let mut out = if scale <= 63 && (-64..=63).contains(&weight) {
        (0x8000 | u16::from(negative) << 13 | scale << 7 | weight as u16 & 0x7F).to_le_bytes().to_vec()
    } else {
        [u16::from(negative) << 14 | scale, weight as u16].map(u16::to_le_bytes).concat()
    };
    out.extend(groups.into_iter().flat_map(u16::to_le_bytes));
    let length = (out.len() as u32 + 4) << 2;
    [&length.to_le_bytes()[..], &out].concat()
}

fn base_10000(exponent: i32, digits: &str) -> (i16, Vec<u16>) {
    if digits.is_empty() {
        return (0, Vec::new());
    }
    let shift = exponent.rem_euclid(4);
    let digits = digits.to_owned() + &"0".repeat(shift as usize);
    let padded = "0".repeat(digits.len().next_multiple_of(4) - digits.len()) + &digits;
    let groups: Vec<u16> = (0..padded.len() / 4).map(|i| padded[4 * i..4 * i + 4].parse().unwrap()).collect();
    ((exponent - shift) as i16 / 4 + groups.len() as i16 - 1, groups)
}

/// Digits after the point that jsonb remembers to print.
fn scale(text: &str) -> u16 {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let fraction = mantissa.split_once('.').map_or(0, |(_, fraction)| fraction.len() as i32);
    (fraction - exponent.parse::<i32>().unwrap()).max(0) as u16
}
