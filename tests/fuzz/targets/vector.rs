//! Vectors: every form that is read comes out as the same elements, and kernels stay within their slices.
#![no_main]

use std::str::from_utf8;

use libfuzzer_sys::fuzz_target;
use pgseal::core::ivf::layout::Layout;
use pgseal::core::vector::distance::{Metric, l1, l2_squared};
use pgseal::core::vector::elements::{
    MAX_DIMENSIONS, check, from_binary, from_bytes, parse_text, to_binary, to_bytes,
};
use pgseal::core::vector::quantiser::{BATCH, Bound, EPSILON, Quantiser};
use pgseal_fuzz::Input;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    match input.byte() % 4 {
        0 => text(input.rest()),
        1 => binary(input.rest()),
        2 => distances(input.rest()),
        _ => codes(input),
    }
});

fn text(bytes: &[u8]) {
    if let Some(elements) = from_utf8(bytes).ok().and_then(|text| parse_text(text).ok()) {
        comes_back(&elements);
    }
}

fn binary(bytes: &[u8]) {
    if let Ok(elements) = from_binary(bytes) {
        assert_eq!(to_binary(&elements).unwrap(), bytes);
        comes_back(&elements);
    }
    if let Ok(elements) = from_bytes(bytes) {
        assert_eq!(to_bytes(&elements).unwrap(), bytes);
        comes_back(&elements);
    }
}

fn comes_back(elements: &[f32]) {
    assert!((1..=MAX_DIMENSIONS).contains(&elements.len()) && check(elements).is_ok());
    let printed: Vec<String> = elements.iter().map(f32::to_string).collect();
    let again = parse_text(&format!("[{}]", printed.join(","))).unwrap();
    // By bits: zero has a sign.
    let bits = |elements: &[f32]| elements.iter().map(|element| element.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&again), bits(elements));
    assert_eq!(bits(&from_bytes(&to_bytes(elements).unwrap()).unwrap()), bits(elements));
    assert_eq!(bits(&from_binary(&to_binary(elements).unwrap()).unwrap()), bits(elements));
}

/// Both halves of the elements are a vector.
fn distances(bytes: &[u8]) {
    let elements = floats(bytes);
    let (a, b) = elements.split_at(elements.len() / 2);
    for metric in [Metric::L2, Metric::InnerProduct, Metric::Cosine, Metric::L1] {
        let (there, back) = (metric.distance(a, b), metric.distance(b, a));
        assert!(there.to_bits() == back.to_bits() || there.is_nan() && back.is_nan());
    }
    let exact =
        |of: fn(f64) -> f64| a.iter().zip(b).map(|(a, b)| of(f64::from(*a) - f64::from(*b))).sum::<f64>();
    near(l1(a, b), exact(f64::abs));
    near(l2_squared(a, b), exact(|difference| difference * difference));
}

/// A sum of numbers that are not negative, without those too small or too large for a float4.
fn near(sum: f32, exact: f64) {
    if (1e-20..1e30).contains(&exact) {
        assert!((f64::from(sum) / exact - 1.0).abs() < 1e-3, "{sum} is not {exact}");
    }
}

/// Dimensions and distance of an index, the bytes of rows, and a query.
fn codes(mut input: Input<'_>) {
    let layout = Layout::new(1 + usize::from(input.half()) % 300).unwrap().rows;
    let metrics = [Metric::L2, Metric::InnerProduct, Metric::Cosine];
    let metric = metrics[usize::from(input.byte()) % metrics.len()];
    let rows = input.part();
    let rows = &rows[..rows.len() / layout.row_bytes() * layout.row_bytes()];
    let mut blocks = Vec::new();
    layout.pack(rows, &mut blocks);
    let count = rows.len() / layout.row_bytes();
    assert_eq!(blocks.len(), layout.blocks_bytes(count));
    let mut again = Vec::new();
    (0..count).for_each(|row| layout.unpack(&blocks, row, &mut again));
    assert_eq!(again, rows);
    let quantiser = Quantiser::new(&[7; 16], metric, layout);
    let mut query = floats(input.rest());
    query.resize(8 * layout.code_bytes, 0.5);
    let Some(query) = quantiser.prepare(&query) else { return };
    let centroid = vec![0.25; query.len()];
    let mut row = Vec::new();
    quantiser.encode(&query, &centroid, &mut row);
    assert_eq!(row.len(), layout.row_bytes());
    let mut query = quantiser.query(query, EPSILON);
    let toward = query.toward(&centroid);
    let mut bounds = [Bound::default(); BATCH];
    for block in blocks.chunks_exact(layout.block_bytes()) {
        query.score(&layout, block, toward, &mut bounds);
    }
}

/// Finite ones.
fn floats(bytes: &[u8]) -> Vec<f32> {
    let floats = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    floats.map(|float| if float.is_finite() { float } else { 1.0 }).collect()
}
