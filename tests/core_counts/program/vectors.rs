//! Embeddings of 384 dimensions, and the lists of an index of them.

use std::hint::black_box;

use pgseal::core::envelope::Envelope;
use pgseal::core::header::Content;
use pgseal::core::ivf::key::{Identity, PageKey};
use pgseal::core::ivf::layout::{Layout, PAGE_BYTES, PageBytes};
use pgseal::core::ivf::list;
use pgseal::core::ivf::page::{self, Kind, Tid};
use pgseal::core::vector::distance::Metric;
use pgseal::core::vector::elements;
use pgseal::core::vector::quantiser::{BATCH, Bound, EPSILON, Quantiser, look_up_scalar};

use super::{KEYRING, Operation, data_key, operation, values};

const DIMENSIONS: usize = 384;
const BLOCK: u32 = 5;

pub fn operations() -> Vec<Operation> {
    vec![
        operation("open a vector", opens_vector()),
        operation("cosine distance of two vectors", measures()),
        operation("open a page of a list", opens_page()),
        operation("score 32 rows of a list", scores()),
        operation("look up 32 codes without AVX2", looks_up()),
    ]
}

/// Vectors that differ.
fn vector(number: usize) -> Vec<f32> {
    (1..=DIMENSIONS).map(|at| (at * (number + 3) * 7919 % 1009) as f32 / 504.0 - 1.0).collect()
}

fn identity() -> Identity {
    let layout = Layout::new(DIMENSIONS).unwrap();
    assert_eq!(layout.rows.width, BATCH);
    Identity { index: [3; 16], keyring: KEYRING, metric: Metric::Cosine, layout }
}

fn quantiser() -> Quantiser {
    let identity = identity();
    Quantiser::new(&identity.index, identity.metric, identity.layout.rows)
}

/// The rows of so many vectors around zero, one after the other.
fn rows(count: usize) -> Vec<u8> {
    let (quantiser, mut rows) = (quantiser(), Vec::new());
    for number in 0..count {
        quantiser.encode(&quantiser.prepare(&vector(number)).unwrap(), &[0.0; DIMENSIONS], &mut rows);
    }
    rows
}

fn opens_vector() -> impl FnMut() {
    let bytes = elements::to_bytes(&vector(1)).unwrap();
    let (value, key) = (values::seal(Content::Vector, &bytes), data_key());
    let (mut room, mut vector) = (vec![0; bytes.len()], Vec::new());
    move || {
        Envelope::parse(black_box(&value)).unwrap().open_bare(key, &KEYRING, &mut room).unwrap();
        elements::read_bytes(&room, &mut vector).unwrap();
        black_box(&vector);
    }
}

fn measures() -> impl FnMut() {
    let (one, other) = (vector(1), vector(2));
    move || {
        black_box(Metric::Cosine.distance(black_box(&one), black_box(&other)));
    }
}

fn opens_page() -> impl FnMut() {
    let identity = identity();
    let key = PageKey::derive(data_key(), 1, &identity);
    let capacity = identity.layout.capacity;
    let tids: Vec<_> = (0..capacity).map(|row| Tid { block: row as u32, offset: 1 }).collect();
    let mut sealed: PageBytes = [0; PAGE_BYTES];
    page::init(&mut sealed, Kind::List, 3, 1);
    list::fill(&mut sealed, BLOCK, &key, &tids, &rows(capacity)).unwrap();
    let mut room = Vec::new();
    move || {
        let mut page = *black_box(&sealed);
        black_box(list::open_in_place(&mut page, BLOCK, &key, &mut room).unwrap().1);
    }
}

fn scores() -> impl FnMut() {
    let (layout, quantiser) = (identity().layout, quantiser());
    let mut block = Vec::new();
    layout.rows.pack(&rows(BATCH), &mut block);
    let mut query = quantiser.query(quantiser.prepare(&vector(BATCH)).unwrap(), EPSILON);
    let toward = query.toward(&[0.0; DIMENSIONS]);
    let mut bounds = [Bound::default(); BATCH];
    move || {
        query.score(&layout.rows, black_box(&block), toward, &mut bounds);
        black_box(&bounds);
    }
}

fn looks_up() -> impl FnMut() {
    let bytes: Vec<u8> = (0..DIMENSIONS / 4 * 16).map(|at| (at * 37) as u8).collect();
    let mut sums = [0; BATCH];
    move || {
        look_up_scalar(black_box(&bytes), black_box(&bytes), &mut sums);
        black_box(&sums);
    }
}
