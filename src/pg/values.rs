//! Sealing and opening values with the keys of this session.

use std::rc::Rc;

use zeroize::Zeroizing;

use super::catalog::Keyring;
use super::error::PgError;
use super::raw::datum::{Varlena, jsonb_from_text, varlena};
use super::raw::xact;
use super::session::{self, Privilege};
use crate::core::envelope::{self, Content, Envelope, Head, Opened, Options};
use crate::core::kdf::DataKey;
use crate::core::token::Tokenizer;

/// Seals `plaintext` under the active keys of `keyring`.
pub fn seal(
    keyring: i32,
    content: Content,
    plaintext: &[u8],
    transit: bool,
    options: Options<'_>,
) -> Result<Varlena, PgError> {
    let (keyring, data_version, key) = session::writer_key(keyring)?;
    session::require(&keyring, Privilege::Encrypt)?;
    let (index_version, tokens) = tokenise(&keyring, content, plaintext)?;
    let head = Head { content, keyring: keyring.id, data_version, index_version, transit };
    let value = envelope::seal(&key, &keyring.uuid, head, &tokens, plaintext, options)?;
    Ok(varlena(&value))
}

/// Seals an opened value anew under the active keys of its own keyring.
pub fn reseal(opened: &OpenValue) -> Result<Varlena, PgError> {
    let (keyring, data_version, key) = session::writer_key(opened.keyring.id)?;
    session::require(&keyring, Privilege::Encrypt)?;
    // JSON text from a big-endian server becomes what this server writes.
    let (content, converted) = match opened.content_code {
        Content::JsonText => (Content::Jsonb, Some(Zeroizing::new(opened.jsonb().bytes().to_vec()))),
        content => (content, None),
    };
    let plaintext = converted.as_ref().map_or(opened.content(), |bytes| bytes.as_slice());
    let (index_version, tokens) = tokenise(&keyring, content, plaintext)?;
    let head = Head { content, keyring: keyring.id, data_version, index_version, transit: false };
    Ok(varlena(&envelope::reseal(&key, &keyring.uuid, head, &tokens, &opened.opened, plaintext)?))
}

fn tokenise(keyring: &Keyring, content: Content, plaintext: &[u8]) -> Result<(u16, Vec<u64>), PgError> {
    let (row, policy) = keyring.active_index()?;
    let key = session::index_key(keyring, row)?;
    let tokenizer = Tokenizer { key: &key, policy };
    match content {
        Content::Jsonb => Ok((row.version, tokenizer.document(plaintext)?)),
        Content::Text => Ok((row.version, tokenizer.text(plaintext)?)),
        // Version 0 says "not tokenised": such values are always rechecked.
        Content::JsonText | Content::Vector => Ok((0, Vec::new())),
    }
}

/// A value that authenticated.
pub struct OpenValue {
    /// The keyring it belongs to.
    pub keyring: Rc<Keyring>,
    key: Rc<DataKey>,
    opened: Opened,
    content_code: Content,
}

impl OpenValue {
    /// The plaintext.
    pub fn content(&self) -> &[u8] {
        self.opened.content()
    }

    /// What the plaintext is.
    pub fn content_code(&self) -> Content {
        self.content_code
    }

    /// The plaintext as a jsonb datum.
    pub fn jsonb(&self) -> Varlena {
        match self.content_code {
            Content::JsonText => jsonb_from_text(&xact::c_string(&String::from_utf8_lossy(self.content()))),
            _ => varlena(self.content()),
        }
    }

    /// Refuses any context but the one the value is bound to.
    pub fn require_context(&self, context: Option<&[u8]>) -> Result<(), PgError> {
        Ok(self.opened.require_context(&self.key, context)?)
    }
}

/// Decrypts a value for a role that may read plaintext.
pub fn open(bytes: &[u8]) -> Result<OpenValue, PgError> {
    let value = open_unchecked(bytes)?;
    session::require(&value.keyring, Privilege::Decrypt)?;
    Ok(value)
}

/// Decrypts a value for internal use, where the plaintext does not leave: the caller has checked a privilege.
pub fn open_unchecked(bytes: &[u8]) -> Result<OpenValue, PgError> {
    let envelope = Envelope::parse(bytes)?;
    let head = envelope.head();
    let keyring = session::keyring(head.keyring)?;
    let key = session::data_key(&keyring, head.data_version)?;
    let opened = envelope.open(&key, &keyring.uuid)?;
    Ok(OpenValue { keyring, key, opened, content_code: head.content })
}
