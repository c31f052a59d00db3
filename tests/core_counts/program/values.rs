//! Values: sealed and opened, under the subkey of the value before and under one of their own.

use std::hint::black_box;

use pgseal::core::batch::end_batch;
use pgseal::core::envelope::{self, Envelope, Options};
use pgseal::core::header::{Content, TokenSet};

use super::{KEYRING, Operation, data_key, document, head, operation};

/// Whose subkey a value has.
#[derive(Clone, Copy, PartialEq)]
enum Subkey {
    Kept,
    Own,
}

pub fn operations() -> Vec<Operation> {
    let sizes = [(200, "200 B"), (1_000, "1 kB"), (8_000, "8 kB")];
    let of_size = |(bytes, size)| {
        let [kept, own] =
            [(Subkey::Kept, "kept subkey"), (Subkey::Own, "own subkey")].map(|(subkey, said)| {
                [
                    operation(format!("seal {size}, {said}"), seals(bytes, subkey)),
                    operation(format!("open {size}, {said}"), opens(bytes, subkey)),
                ]
            });
        kept.into_iter().chain(own)
    };
    let mut all: Vec<_> = sizes.into_iter().flat_map(of_size).collect();
    all.push(operation("->> of 1 kB: open it, seal the part", reads_field()));
    all
}

pub fn seal(content: Content, plaintext: &[u8]) -> Vec<u8> {
    seal_under(data_key(), content, plaintext)
}

fn seal_under(key: &pgseal::core::kdf::DataKey, content: Content, plaintext: &[u8]) -> Vec<u8> {
    let (head, tokens) = (head(content), &TokenSet::NONE);
    envelope::seal(key, &KEYRING, head, tokens, plaintext, Options::default()).unwrap()
}

fn seals(bytes: usize, subkey: Subkey) -> impl FnMut() {
    let (key, document) = (data_key(), document(bytes));
    move || {
        if subkey == Subkey::Own {
            end_batch();
        }
        black_box(seal_under(key, Content::Jsonb, black_box(&document)));
    }
}

fn opens(bytes: usize, subkey: Subkey) -> impl FnMut() {
    let (key, document) = (data_key(), document(bytes));
    let values = [(), (), ()].map(|()| {
        end_batch();
        seal_under(key, Content::Jsonb, &document)
    });
    let mut room = vec![0; document.len()];
    let mut calls = 0;
    move || {
        // No two in a row share a subkey, not the first and the one that was sealed last: none is kept.
        let value = Envelope::parse(black_box(&values[calls % 3])).unwrap();
        calls += usize::from(subkey == Subkey::Own);
        value.open_bare(key, &KEYRING, &mut room).unwrap();
        black_box(&room);
    }
}

fn reads_field() -> impl FnMut() {
    let (key, document) = (data_key(), document(1_000));
    let value = seal_under(key, Content::Jsonb, &document);
    move || {
        let opened = Envelope::parse(black_box(&value)).unwrap().open(key, &KEYRING).unwrap();
        let part = envelope::seal_part(&[9; 32], key, &KEYRING, head(Content::Text), &opened, b"Mary Jones")
            .unwrap();
        black_box(part);
    }
}
