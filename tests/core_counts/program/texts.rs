//! What is read and written without a key.

use std::hint::black_box;

use pgseal::core::fold::fold;
use pgseal::core::header::Content;
use pgseal::core::jsonb::{JsonbError, is_utf8, walk};
use pgseal::core::range::{Bounds, Decimal, Domain, Range, Scalar};
use pgseal::core::{iso8601, text_form};
use serde_json::json;

use super::{Operation, document, jsonb, operation, parse, values};

pub fn operations() -> Vec<Operation> {
    vec![
        operation("walk a jsonb of 40 scalars", walks()),
        operation("check that a jsonb of 40 scalars is UTF-8", checks_utf8()),
        operation("fold the case of 100 B", folds()),
        operation("buckets of a number in a range of 10,000 steps", finds_buckets()),
        operation("buckets between two numbers of 10,000 steps", covers()),
        operation("read a time", reads_time()),
        operation("write the text form of 1 kB", writes_text()),
        operation("read the text form of 1 kB", reads_text()),
    ]
}

fn forty_scalars() -> Vec<u8> {
    let members: Vec<_> =
        (0..20).map(|at| format!(r#""key{at}":"value {at}","number{at}":{at}.5"#)).collect();
    jsonb(&parse(&format!("{{{}}}", members.join(","))))
}

fn checks_utf8() -> impl FnMut() {
    let document = forty_scalars();
    move || {
        assert!(is_utf8(black_box(&document)).unwrap());
    }
}

fn walks() -> impl FnMut() {
    let document = forty_scalars();
    move || {
        let mut bytes = 0;
        walk(black_box(&document), |leaf| {
            bytes += leaf.value.len();
            Ok::<(), JsonbError>(())
        })
        .unwrap();
        black_box(bytes);
    }
}

fn folds() -> impl FnMut() {
    let text = "Häufige Straße in BERLIN ".repeat(4).into_bytes();
    let text = text[..100].to_vec();
    move || {
        black_box(fold(black_box(&text)).unwrap());
    }
}

fn range() -> Range {
    Range::from_json(&json!({ "min": 0, "max": 9999, "step": 1 })).unwrap()
}

/// One of three digits.
fn number(digits: &[u8; 3]) -> Scalar {
    Scalar::Number(Decimal::new([&[0; 5][..], digits].concat()).unwrap())
}

fn finds_buckets() -> impl FnMut() {
    let (range, number) = (range(), number(b"471"));
    move || {
        black_box(range.buckets(black_box(&number)));
    }
}

fn covers() -> impl FnMut() {
    let range = range();
    let bounds = Bounds { domain: Domain::Numbers, low: Some(number(b"123")), high: Some(number(b"987")) };
    move || {
        black_box(range.cover(black_box(&bounds)));
    }
}

fn reads_time() -> impl FnMut() {
    || {
        black_box(iso8601::micros(black_box("2026-02-28T12:34:56.789+01:00")).unwrap());
    }
}

fn writes_text() -> impl FnMut() {
    let value = values::seal(Content::Jsonb, &document(1_000));
    let mut room = vec![0; text_form::text_bytes(value.len())];
    move || {
        text_form::encode(black_box(&value), &mut room);
        black_box(&room);
    }
}

fn reads_text() -> impl FnMut() {
    let value = values::seal(Content::Jsonb, &document(1_000));
    let mut text = vec![0; text_form::text_bytes(value.len())];
    text_form::encode(&value, &mut text);
    move || {
        black_box(text_form::decode(black_box(&text)).unwrap().unwrap());
    }
}
