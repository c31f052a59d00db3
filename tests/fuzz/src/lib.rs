//! What the targets share: keys that protect nothing, inputs that are taken apart, and bytes that are changed by them.

use std::sync::LazyLock;

use pgseal::core::Uuid;
use pgseal::core::kdf::{DataKey, IndexKey};
use pgseal::core::policy::{Policy, Scheme};
use pgseal::core::secret::RootKey;
use pgseal::core::token::Tokenizer;

/// The keyring of all that is sealed here.
pub const KEYRING: Uuid = [3; 16];
/// Its id.
pub const KEYRING_ID: i32 = 5;
/// Each kind of rule that a policy can have, the first that covers a scalar counts.
pub const PATHS: [&str; 6] = [
    "$",
    r#"{"path": "$.b", "bits": 12}"#,
    r#"{"path": "$.s", "spread": 4}"#,
    r#"{"path": "$.c", "casefold": true}"#,
    r#"{"path": "$.r", "range": {"min": 0, "max": 150, "step": 0.5}}"#,
    "$.**",
];

thread_local! {
    /// Under its first versions, which stand in for those that come after them. A data key is for one thread.
    static DATA_KEYS: &'static [DataKey; 4] = Box::leak(Box::new([0, 1, 2, 3].map(|version| {
        DataKey::derive(&root(version), &KEYRING, None).expect("no commitment is asked for")
    })));
}
static INDEX_KEY: LazyLock<IndexKey> =
    LazyLock::new(|| IndexKey::derive(&root(9), &KEYRING, None).expect("no commitment is asked for"));
static POLICIES: LazyLock<[Policy; 2]> = LazyLock::new(|| {
    [Scheme::Narrow, Scheme::Decide].map(|scheme| Policy::from_paths(scheme, &PATHS).expect("a policy"))
});

/// A data key of the keyring.
pub fn data_key(version: u16) -> &'static DataKey {
    DATA_KEYS.with(|keys| &keys[usize::from(version) % keys.len()])
}

/// The index key of the keyring.
pub fn index_key() -> &'static IndexKey {
    &INDEX_KEY
}

/// What makes tokens of [`PATHS`], under either scheme.
pub fn tokenizers() -> [Tokenizer<'static>; 2] {
    POLICIES.each_ref().map(|policy| Tokenizer { key: index_key(), version: 1, policy })
}

fn root(byte: u8) -> RootKey {
    RootKey::take(&mut [byte; 32])
}

/// Bytes that are taken from the front of an input; those that are missing are zeros.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// From the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Input(bytes)
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// Two bytes, big-endian.
    pub fn half(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    /// So many bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    /// As many bytes as the next two say, or all that are left.
    pub fn part(&mut self) -> &'a [u8] {
        let length = self.half();
        self.take(length.into())
    }

    /// All that is left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Is nothing left?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Changes single bytes: each three of `plan` are a place (from the start, or from the end where its top bit is set) and
/// what is added to the byte there.
pub fn change(bytes: &mut [u8], plan: &[u8]) {
    for [high, low, added] in plan.as_chunks().0 {
        let place = usize::from(u16::from_be_bytes([high & 0x7F, *low]));
        let place = if high & 0x80 == 0 { Some(place) } else { bytes.len().checked_sub(place + 1) };
        if let Some(byte) = place.and_then(|place| bytes.get_mut(place)) {
            *byte = byte.wrapping_add(*added);
        }
    }
}
