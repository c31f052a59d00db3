//! Operations of the core, each a few times in one function whose instructions `tests/core_counts/main.rs` has counted. Says
//! what the processor has that decides which code runs, and the name of each operation.
#![allow(clippy::unwrap_used, reason = "an operation that fails is not to be counted")]

#[allow(dead_code, reason = "a part of a reference for tests")]
#[path = "../../format1/document.rs"]
mod document;
#[path = "../../format1/encode.rs"]
mod encode;
mod search;
mod texts;
mod values;
mod vectors;

use pgseal::core::canonical::Kind;
use pgseal::core::header::{Content, Head};
use pgseal::core::kdf::{DataKey, IndexKey};
use pgseal::core::secret::Secret;
use serde_json::Value;

use self::document::parse;
use self::encode::jsonb;

/// Calls of an operation that are counted.
const CALLS: usize = 100;
/// Calls before those, which make what is made once.
const FIRST_CALLS: usize = 8;

const KEYRING: [u8; 16] = [7; 16];
const KEYRING_ID: i32 = 7;

type Operation = (String, Box<dyn FnMut()>);

fn main() {
    println!("processor: {}", processor());
    println!("calls: {CALLS}");
    let operations = [values::operations(), search::operations(), texts::operations(), vectors::operations()];
    for (name, mut operation) in operations.into_iter().flatten() {
        (0..FIRST_CALLS).for_each(|_| operation());
        counted(&mut *operation);
        println!("operation: {name}");
    }
}

/// Callgrind looks at it by its name.
#[inline(never)]
fn counted(operation: &mut dyn FnMut()) {
    (0..CALLS).for_each(|_| operation());
}

fn operation(name: impl Into<String>, operation: impl FnMut() + 'static) -> Operation {
    (name.into(), Box::new(operation))
}

/// Its family, and what ring, RustCrypto and the kernels for vectors ask for.
fn processor() -> String {
    #[cfg(target_arch = "x86_64")]
    let has = [
        ("aes", is_x86_feature_detected!("aes")),
        ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
        ("avx", is_x86_feature_detected!("avx")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("bmi2", is_x86_feature_detected!("bmi2")),
        ("sha", is_x86_feature_detected!("sha")),
        ("vaes", is_x86_feature_detected!("vaes")),
        ("vpclmulqdq", is_x86_feature_detected!("vpclmulqdq")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let has: [(&str, bool); 0] = [];
    let has = has.into_iter().filter(|(_, has)| *has).map(|(name, _)| name);
    std::iter::once(std::env::consts::ARCH).chain(has).collect::<Vec<_>>().join(" ")
}

fn data_key() -> &'static DataKey {
    Box::leak(Box::new(DataKey::derive(&Secret::from_slice(&[1; 32]).unwrap(), &KEYRING, None).unwrap()))
}

fn index_key() -> &'static IndexKey {
    Box::leak(Box::new(IndexKey::derive(&Secret::from_slice(&[2; 32]).unwrap(), &KEYRING, None).unwrap()))
}

fn head(content: Content) -> Head {
    Head { content, keyring: KEYRING_ID, data_version: 1, index_version: 1, transit: false }
}

/// A jsonb document of so many bytes, most of them in one string where it is long.
fn document(bytes: usize) -> Vec<u8> {
    let padded = |notes: usize| {
        let notes = "n".repeat(notes);
        jsonb(&parse(&format!(
            r#"{{"name":"Mary Jones","diagnosis":"asthma","age":47,"ward":"B2","new":true,"tags":["a","b"],"notes":"{notes}"}}"#
        )))
    };
    let bare = padded(0).len();
    assert!(bare <= bytes, "{bare}");
    padded(bytes - bare)
}
