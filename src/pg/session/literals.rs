//! Literals that this session seals into plans, and how it knows its own again.

use std::cell::Cell;

use once_cell::unsync::OnceCell;
use zeroize::Zeroizing;

use crate::core::envelope::{self, Envelope, Options};
use crate::core::header::{Content, Head, TokenSet};
use crate::core::kdf::DataKey;
use crate::core::rng::{self, RandomError};
use crate::core::{Uuid, header};
use crate::pg::error::PgError;
use crate::pg::raw::{reveal, untyped, xact};

/// The number that literals without a keyring bear. No keyring has the version beside it.
const NO_KEYRING: (i32, u16) = (i32::MAX, u16::MAX);

/// Seals literals for as long as a statement is analysed: what the hook after that does not make plain gets a keyring
/// there, and nothing sealed with this leaves the analysis.
struct Unbound {
    key: DataKey,
    uuid: Uuid,
}

impl Unbound {
    fn new() -> Result<Self, RandomError> {
        let uuid = rng::bytes()?;
        // Without a commitment to compare there is no other way to fail.
        let key = DataKey::derive(&rng::root_key()?, &uuid, None).map_err(|_| RandomError)?;
        Ok(Unbound { key, uuid })
    }
}

thread_local! {
    /// Literals are in plans: sealed under the keyring that the session chose, for the role of the moment.
    static IN_PLANS: Cell<bool> = const { Cell::new(false) };
    /// What only this process knows; drawn with the first literal.
    static SECRET: OnceCell<Zeroizing<[u8; 32]>> = const { OnceCell::new() };
    static UNBOUND: OnceCell<Unbound> = const { OnceCell::new() };
}

/// Who seals literals now: this process, for the current role. Nobody else can say so.
pub fn maker() -> Result<Zeroizing<Vec<u8>>, PgError> {
    SECRET.with(|secret| {
        let secret = secret.get_or_try_init(|| rng::bytes().map(Zeroizing::new))?;
        Ok(Zeroizing::new([secret.as_slice(), &xact::current_role().to_u32().to_be_bytes()].concat()))
    })
}

/// This process has sealed literals, so that one may be its own.
pub fn has_made_literals() -> bool {
    SECRET.with(|secret| secret.get().is_some())
}

/// A literal is sealed, for a plan perhaps.
pub fn literal_made() {
    IN_PLANS.set(true);
    reveal::literal_made();
}

/// Were literals sealed for plans that are to be made again?
pub(super) fn taken_back() -> bool {
    IN_PLANS.take()
}

/// Seals a literal without any keyring, for the hook after parse analysis. Equal ones give equal bytes.
pub fn seal_unbound(content: Content, plaintext: &[u8]) -> Result<Vec<u8>, PgError> {
    let (keyring, data_version) = NO_KEYRING;
    let head = Head { content, keyring, data_version, index_version: 0, transit: true };
    let options = Options { deterministic: true, ..Options::default() };
    untyped::literal_unbound();
    UNBOUND.with(|unbound| {
        let Unbound { key, uuid } = unbound.get_or_try_init(Unbound::new)?;
        Ok(envelope::seal(key, uuid, head, &TokenSet::NONE, plaintext, options)?)
    })
}

/// The plaintext of a literal that [`seal_unbound`] made; `None` for everything else.
pub fn open_unbound(bytes: &[u8]) -> Option<(Content, Zeroizing<Vec<u8>>)> {
    let (head, _) = header::parse_head(bytes).ok()?;
    if (head.keyring, head.data_version) != NO_KEYRING {
        return None;
    }
    UNBOUND.with(|unbound| {
        let Unbound { key, uuid } = unbound.get()?;
        let opened = Envelope::parse(bytes).ok()?.open(key, uuid).ok()?;
        Some((head.content, Zeroizing::new(opened.content().to_vec())))
    })
}

/// Does a datum that is made of others hold such a literal?
pub fn holds_unbound(bytes: &[u8]) -> bool {
    let (keyring, data_version) = NO_KEYRING;
    let mark = [keyring.to_be_bytes().as_slice(), &data_version.to_be_bytes(), &[0; 6]].concat();
    bytes.windows(mark.len()).any(|window| window == mark)
}
