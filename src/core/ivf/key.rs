//! The key of an index's pages.

use std::rc::Rc;

use crate::core::Uuid;
use crate::core::aead::Xaes256Gcm;
use crate::core::held::Held;
use crate::core::kdf::DataKey;
use crate::core::vector::distance::Metric;

use super::layout::Layout;

/// Format of the pages; a part of their key.
pub const PAGE_FORMAT: u8 = 1;
/// Bits of a code per dimension.
pub const CODE_BITS: u8 = 1;

/// What an index is. Another identity is another key, so no page of one passes for a page of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Random, of the index.
    pub index: Uuid,
    /// Of the keyring whose data key seals the pages.
    pub keyring: Uuid,
    /// By which distance it orders.
    pub metric: Metric,
    /// Where things stand on its pages.
    pub layout: Layout,
}

/// The key of an index's pages under one version of the data key.
pub struct PageKey {
    pub(super) identity: Identity,
    pub(super) version: u16,
    pub(super) aead: Xaes256Gcm,
}

/// A key that several use.
pub type HeldPageKey = Rc<Held<PageKey>>;

impl PageKey {
    /// HKDF-Expand of the data key's secret for indexes; info: `index uuid || dimensions || metric || bits || format`.
    pub fn derive(data: &DataKey, version: u16, identity: &Identity) -> Self {
        let mut info = [0; 21];
        info[..16].copy_from_slice(&identity.index);
        info[16..18].copy_from_slice(&(identity.layout.dimensions as u16).to_be_bytes());
        info[18..].copy_from_slice(&[identity.metric as u8, CODE_BITS, PAGE_FORMAT]);
        PageKey { identity: *identity, version, aead: data.ivf_key(&info) }
    }

    /// The version of the data key.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// Which index it is for.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use static_assertions::assert_not_impl_any;
    use std::fmt::{Debug, Display};

    assert_not_impl_any!(PageKey: Debug, Display, Clone, PartialEq, serde::Serialize);
}
