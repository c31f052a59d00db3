//! What a wrapped key is bound to at the KMS, so that one keyring's key cannot be passed off as another's.

use crate::core::Uuid;

/// What a root key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Seals values and filters.
    Data,
    /// Makes tokens.
    Index,
}

/// The context of one wrapped key. It names the keyring by its uuid, never by its name, because KMS logs
/// keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrapContext {
    /// The keyring.
    pub keyring: Uuid,
    /// Data or index key.
    pub purpose: Purpose,
    /// Version of the key, from 1.
    pub version: u16,
}

impl Purpose {
    /// Each.
    pub const ALL: [Purpose; 2] = [Purpose::Data, Purpose::Index];

    /// As it stands in a context.
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::Data => "data",
            Purpose::Index => "index",
        }
    }
}

impl WrapContext {
    /// The pairs for a KMS that takes pairs.
    pub fn pairs(&self) -> [(&'static str, String); 5] {
        [
            ("app", "pgseal".into()),
            ("v", "1".into()),
            ("keyring", hyphenated(&self.keyring)),
            ("purpose", self.purpose.as_str().into()),
            ("version", self.version.to_string()),
        ]
    }

    /// The same as one byte string; injective because no part can hold a comma.
    pub fn bytes(&self) -> Vec<u8> {
        let pairs: Vec<String> = self.pairs().iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join(",").into_bytes()
    }
}

/// A uuid as RFC 9562 writes it.
fn hyphenated(uuid: &Uuid) -> String {
    let number = u128::from_be_bytes(*uuid);
    let hex = format!("{number:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_form_is_fixed() {
        let context = WrapContext { keyring: *b"0123456789abcdef", purpose: Purpose::Index, version: 7 };
        let expected = "app=pgseal,v=1,keyring=30313233-3435-3637-3839-616263646566,purpose=index,version=7";
        assert_eq!(context.bytes(), expected.as_bytes());
    }
}
