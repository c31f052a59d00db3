//! Sealing and opening values with the keys of this session.

use std::rc::Rc;

use zeroize::Zeroizing;

use crate::core::envelope::{self, Envelope, Opened, Options};
use crate::core::header::{Content, Head, TokenSet, parse_head};
use crate::core::jsonb;
use crate::core::modifier::Column;
use crate::core::policy::{Policy, Scheme};
use crate::core::token::Tokenizer;
use crate::keys::cache::HeldDataKey;
use crate::pg::catalog::Keyring;
use crate::pg::counters::{self, Counter};
use crate::pg::error::PgError;
use crate::pg::raw::call::Call;
use crate::pg::raw::datum::{Owned, Varlena, fill_varlena, jsonb_from_text, type_id_name, varlena};
use crate::pg::raw::encoding;
use crate::pg::session::decrypt_log::{self, Done};
use crate::pg::session::{self, Checked, Privilege};
use crate::pg::values::plain_vector;

/// What distinguishes the types.
pub struct Kind {
    /// As SQL writes it.
    pub name: &'static str,
    contents: &'static [Content],
}

/// `encrypted_jsonb`.
pub static JSONB: Kind = Kind { name: "encrypted_jsonb", contents: &[Content::Jsonb, Content::JsonText] };
/// `encrypted_text`.
pub static TEXT: Kind = Kind { name: "encrypted_text", contents: &[Content::Text] };

/// `encrypted_vector`.
pub static VECTOR: Kind = Kind { name: "encrypted_vector", contents: &[Content::Vector] };

impl Kind {
    /// The type of this name, without its schema.
    pub fn named(name: &str) -> &'static Kind {
        [&TEXT, &VECTOR].into_iter().find(|kind| kind.name == name).unwrap_or(&JSONB)
    }

    /// What a type modifier of this type says.
    pub fn column(&self, typmod: i32) -> Column {
        if self.holds(Content::Vector) { Column::of_vectors(typmod) } else { Column::of_documents(typmod) }
    }

    /// May a value of this type hold it?
    pub fn holds(&self, content: Content) -> bool {
        self.contents.contains(&content)
    }

    /// Refuses a value that authenticates, but was written for another type: PostgreSQL's own functions trust theirs.
    pub fn require(&self, head: &Head) -> Result<(), PgError> {
        self.holds(head.content).then_some(()).ok_or(PgError::OtherContent(self.name))
    }
}

/// What a call site keeps of a function that several types have.
#[derive(Default)]
struct OfKind<T> {
    kind: Option<&'static Kind>,
    kept: T,
}

/// [`Call::with_cache`] with the type of argument 0, for functions that several types have.
pub fn with_kind<T: Default + 'static, R>(call: Call, work: impl FnOnce(&'static Kind, &mut T) -> R) -> R {
    call.with_cache(|site: &mut OfKind<T>| {
        let kind = site.kind.get_or_insert_with(|| Kind::named(&type_id_name(call.argument_type(0))));
        work(kind, &mut site.kept)
    })
}

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
    counters::count(Counter::ValuesSealed);
    let value = envelope::seal(&key, &keyring.uuid, head, &tokens, plaintext, options)?;
    Ok(varlena(&value))
}

/// Seals a literal whose column is not known yet. Equal ones give equal bytes, without which GROUP BY and DISTINCT of an
/// expression with one would fail; so no tokens, whose salts are random.
///
/// A role that may only search compares a text with it: that one never authenticates as a stored value.
pub fn seal_literal(keyring: i32, content: Content, plaintext: &[u8]) -> Result<Varlena, PgError> {
    let (keyring, data_version, key) = session::writer_key(keyring)?;
    let compared = content == Content::Text
        && !session::has(&keyring, Privilege::Encrypt)
        && session::has(&keyring, Privilege::Search);
    if !compared {
        session::require(&keyring, Privilege::Encrypt)?;
    }
    session::literal_made();
    let maker = session::maker()?;
    let options = Options { deterministic: true, maker: Some(&maker), compared, ..Options::default() };
    let head = Head { content, keyring: keyring.id, data_version, index_version: 0, transit: true };
    counters::count(Counter::ValuesSealed);
    Ok(varlena(&envelope::seal(&key, &keyring.uuid, head, &TokenSet::NONE, plaintext, options)?))
}

/// Seals an opened value anew under the active keys of its own keyring.
fn reseal(opened: &OpenValue) -> Result<Varlena, PgError> {
    // JSON text from a big-endian server becomes what this server writes.
    if opened.head.content == Content::JsonText {
        return seal_changed(opened, opened.datum()?.bytes());
    }
    let (keyring, data_version, key) = session::writer_key(opened.keyring.id)?;
    let (index_version, tokens) = tokenise(&keyring, opened.head.content, opened.content())?;
    let head = Head { data_version, index_version, transit: false, ..opened.head };
    counters::count(Counter::ValuesSealed);
    Ok(varlena(&envelope::reseal(&key, &keyring.uuid, head, &tokens, &opened.opened, opened.content())?))
}

/// Sealed under the active keys, without `index` the data key, and not in transit; from the head of a value. What is no
/// value, or of no keyring, is not.
pub fn is_current(bytes: &[u8], index: bool) -> Result<bool, PgError> {
    let Ok((head, _)) = parse_head(bytes) else { return Ok(false) };
    match session::keyring(head.keyring) {
        Err(PgError::UnknownKeyringId(_)) => Ok(false),
        keyring => keyring?.is_active_for(&head, index),
    }
}

/// Seals a stored value anew under the active keys of its own keyring. Tokens that the active index key has made, or
/// without `index` any index key, stay.
pub fn rotate(bytes: &[u8], kind: &Kind, index: bool) -> Result<Varlena, PgError> {
    let (head, _) = parse_head(bytes)?;
    kind.require(&head)?;
    if session::keyring(head.keyring)?.keeps_tokens(&head, index)? {
        let mut out = Vec::new();
        Renewer::of(&head)?.renew(bytes, &mut out)?;
        return Ok(varlena(&out));
    }
    reseal(&open_for(bytes, kind, Privilege::Encrypt)?)
}

impl Keyring {
    /// Such a value is sealed under the active keys, without `index` the data key, and not in transit.
    pub fn is_active_for(&self, head: &Head, index: bool) -> Result<bool, PgError> {
        let data = self.active_data()?.version == head.data_version;
        Ok(data && self.has_tokens_of(head, index)? && !head.transit)
    }

    /// Nothing but the data key of such a value has to change.
    pub fn keeps_tokens(&self, head: &Head, index: bool) -> Result<bool, PgError> {
        Ok(self.has_tokens_of(head, index)? && !head.transit && head.content != Content::JsonText)
    }

    /// Without `index` nobody asks, and a vector has none.
    fn has_tokens_of(&self, head: &Head, index: bool) -> Result<bool, PgError> {
        let asked = index && head.content != Content::Vector;
        Ok(!asked || self.active_index()?.0.version == head.index_version)
    }
}

/// The keys that renew values of one keyring and data key version. Whoever keeps it longer than for a moment goes on
/// with keys that were flushed or retired.
pub struct Renewer {
    /// Where the values belong.
    pub keyring: Rc<Keyring>,
    from: u16,
    old: HeldDataKey,
    /// The data key version that they get.
    pub to: u16,
    new: HeldDataKey,
}

impl Renewer {
    /// For values with a head like this, for a role with `encrypt`.
    pub fn of(head: &Head) -> Result<Self, PgError> {
        let (_, old) = opening_key(head, |keyring| session::require(keyring, Privilege::Encrypt))?;
        let (keyring, to, new) = session::writer_key(head.keyring)?;
        Ok(Renewer { keyring, from: head.data_version, old, to, new })
    }

    /// Are these its keys?
    pub fn fits(&self, head: &Head) -> bool {
        (self.keyring.id, self.from) == (head.keyring, head.data_version)
    }

    /// Appends the value under the active data key to `out`; on error there may be bytes that mean nothing.
    pub fn renew(&self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), PgError> {
        counters::count(Counter::ValuesDecrypted);
        decrypt_log::record(Done::Decrypted, &self.keyring, self.from);
        Envelope::parse(bytes)?.renew(&self.old, &self.new, &self.keyring.uuid, self.to, out)?;
        counters::count(Counter::ValuesSealed);
        Ok(())
    }
}

/// Seals a part of `value`, without tokens: same keyring, context, compression and padding. Of a role that only searches
/// it says that this role has read it here: that it may group it.
pub fn seal_part(
    value: &OpenValue,
    content: Content,
    plaintext: &[u8],
    searches: bool,
) -> Result<Varlena, PgError> {
    let (keyring, data_version, key) = session::writer_key(value.keyring.id)?;
    let head = Head { content, keyring: keyring.id, data_version, index_version: 0, transit: false };
    counters::count(Counter::ValuesSealed);
    let sealed = if searches {
        let maker = session::maker()?;
        envelope::seal_part(&maker, &key, &keyring.uuid, head, &value.opened, plaintext)?
    } else {
        envelope::reseal(&key, &keyring.uuid, head, &TokenSet::NONE, &value.opened, plaintext)?
    };
    Ok(varlena(&sealed))
}

/// Seals a changed document in place of `value`: same keyring, context, compression and padding.
pub fn seal_changed(value: &OpenValue, document: &[u8]) -> Result<Varlena, PgError> {
    let (keyring, data_version, key) = session::writer_key(value.keyring.id)?;
    let (index_version, tokens) = tokenise(&keyring, Content::Jsonb, document)?;
    let head =
        Head { content: Content::Jsonb, keyring: keyring.id, data_version, index_version, transit: false };
    counters::count(Counter::ValuesSealed);
    Ok(varlena(&envelope::reseal(&key, &keyring.uuid, head, &tokens, &value.opened, document)?))
}

fn tokenise(keyring: &Keyring, content: Content, plaintext: &[u8]) -> Result<(u16, TokenSet), PgError> {
    let (row, policy) = keyring.active_index()?;
    let key = session::index_key(keyring, row)?;
    let tokenizer = Tokenizer { version: row.version, key: &key, policy };
    match content {
        Content::Jsonb => Ok((row.version, tokenizer.document(plaintext)?)),
        Content::Text => Ok((row.version, tokenizer.text(plaintext)?)),
        // Version 0 says "not tokenised": such values are always rechecked.
        Content::JsonText | Content::Vector => Ok((0, TokenSet::NONE)),
    }
}

/// A value that authenticated.
pub struct OpenValue {
    /// The keyring it belongs to.
    pub keyring: Rc<Keyring>,
    key: HeldDataKey,
    opened: Opened,
    head: Head,
    own: bool,
}

impl OpenValue {
    /// The plaintext.
    pub fn content(&self) -> &[u8] {
        self.opened.content()
    }

    /// Sealed before its column was known.
    pub fn in_transit(&self) -> bool {
        self.head.transit
    }

    /// A literal that this role has typed or sent in this session.
    pub fn is_own(&self) -> bool {
        self.own
    }

    /// The plaintext as a datum: jsonb, text or vector.
    pub fn datum(&self) -> Result<Varlena, PgError> {
        match self.head.content {
            Content::JsonText if !encoding::is_valid(self.content()) => Err(PgError::OtherEncoding),
            Content::JsonText => Ok(jsonb_from_text(&encoding::c_text(self.content())?)),
            Content::Vector => {
                let head = plain_vector::head(self.content().len())?;
                let parts = [head.as_slice(), self.content()];
                Ok(varlena(&Zeroizing::new(parts.concat())))
            }
            Content::Jsonb | Content::Text => Ok(varlena(self.content())),
        }
    }

    /// Bound to a context.
    pub fn is_bound(&self) -> bool {
        self.opened.is_bound()
    }

    /// Refuses a value that is bound, unless this one is bound to the same context.
    pub fn require_same_context(&self, added: &OpenValue) -> Result<(), PgError> {
        Ok(self.opened.require_same_context(&added.opened)?)
    }

    /// Refuses any context but the one the value is bound to.
    pub fn require_context(&self, context: Option<&[u8]>) -> Result<(), PgError> {
        Ok(self.opened.require_context(&self.key, context)?)
    }
}

/// A value with the key that opens it. An [`Envelope`] becomes this and this an [`OpenValue`]: whoever holds one knows
/// that the steps before were taken.
pub struct Located<'a> {
    /// The keyring it belongs to.
    pub keyring: Rc<Keyring>,
    key: HeldDataKey,
    envelope: Envelope<'a>,
}

/// Finds the key of a value of this type, once `permit` has let the role through: without a privilege no KMS is asked.
fn locate<'a>(
    bytes: &'a [u8],
    kind: &Kind,
    permit: impl FnOnce(&Keyring, &Head) -> Result<(), PgError>,
) -> Result<Located<'a>, PgError> {
    kind.require(&parse_head(bytes)?.0)?;
    locate_any(bytes, permit)
}

/// The same whatever the value holds: for those who do not look at its plaintext.
pub fn locate_any(
    bytes: &[u8],
    permit: impl FnOnce(&Keyring, &Head) -> Result<(), PgError>,
) -> Result<Located<'_>, PgError> {
    let envelope = Envelope::parse(bytes)?;
    let head = envelope.head();
    let (keyring, key) = opening_key(&head, |keyring| permit(keyring, &head))?;
    counters::count(Counter::ValuesDecrypted);
    decrypt_log::record(Done::Decrypted, &keyring, head.data_version);
    Ok(Located { keyring, key, envelope })
}

fn opening_key(
    head: &Head,
    permit: impl FnOnce(&Keyring) -> Result<(), PgError>,
) -> Result<(Rc<Keyring>, HeldDataKey), PgError> {
    let mut keyring = session::keyring(head.keyring)?;
    permit(&keyring)?;
    if keyring.data_key(head.data_version).is_err() {
        // The row may be visible before the message of the rotation that made its key has arrived.
        session::forget();
        keyring = session::keyring(head.keyring)?;
    }
    let key = session::data_key(&keyring, head.data_version)?;
    Ok((keyring, key))
}

impl Located<'_> {
    /// Decrypts the value.
    pub fn open(self) -> Result<OpenValue, PgError> {
        match self.envelope.open(&self.key, &self.keyring.uuid) {
            Ok(opened) => {
                let own = self.is_own(&opened)?;
                Ok(self.opened(opened, own))
            }
            Err(error) => match self.own_compared()? {
                Some(opened) => Ok(self.opened(opened, true)),
                None => Err(error.into()),
            },
        }
    }

    /// Decrypts a literal, which may be one that was sealed to be compared only, in a view perhaps.
    fn open_literal(self) -> Result<OpenValue, PgError> {
        match self.envelope.open_compared(&self.key, &self.keyring.uuid) {
            Ok(opened) => {
                let own = self.is_own(&opened)?;
                Ok(self.opened(opened, own))
            }
            Err(_) => self.open(),
        }
    }

    /// The content of a literal of this session that was sealed to be compared only: a plan may not show that it is one.
    fn own_compared(&self) -> Result<Option<Opened>, PgError> {
        match self.envelope.open_compared(&self.key, &self.keyring.uuid) {
            Ok(opened) if self.is_own(&opened)? => Ok(Some(opened)),
            _ => Ok(None),
        }
    }

    fn is_own(&self, opened: &Opened) -> Result<bool, PgError> {
        Ok(self.envelope.head().transit && self.is_made_here(opened)?)
    }

    /// This process has sealed it for the current role.
    fn is_made_here(&self, opened: &Opened) -> Result<bool, PgError> {
        if !session::has_made_literals() {
            return Ok(false);
        }
        Ok(self.envelope.is_made_by(opened, &self.key, &self.keyring.uuid, &session::maker()?))
    }

    /// Decrypts a value that the role may only look at if it has made it itself, by `->>` perhaps.
    fn open_made_here(self) -> Result<OpenValue, PgError> {
        let opened = match self.envelope.open(&self.key, &self.keyring.uuid) {
            Ok(opened) if self.is_made_here(&opened)? => opened,
            Ok(_) => return Err(PgError::Undeclared(self.keyring.name.clone())),
            Err(error) => self.own_compared()?.ok_or(error)?,
        };
        let own = self.is_own(&opened)?;
        Ok(self.opened(opened, own))
    }

    fn opened(self, opened: Opened, own: bool) -> OpenValue {
        OpenValue { keyring: self.keyring, key: self.key, opened, head: self.envelope.head(), own }
    }

    /// Length of the content where it can be decrypted into place: the common case, by [`Located::open_into`].
    pub fn bare_length(&self) -> Option<usize> {
        let as_it_is = self.envelope.head().content != Content::JsonText;
        self.envelope.bare_length().filter(|_| as_it_is)
    }

    /// Decrypts into `room`, which has [`Located::bare_length`] bytes.
    pub fn open_into(&self, room: &mut [u8]) -> Result<(), PgError> {
        let Err(error) = self.envelope.open_bare(&self.key, &self.keyring.uuid, room) else { return Ok(()) };
        let opened = self.own_compared()?.ok_or(error)?;
        room.copy_from_slice(opened.content());
        Ok(())
    }
}

/// Finds the key of a value for a role that may read plaintext.
pub fn locate_to_read<'a>(
    bytes: &'a [u8],
    kind: &Kind,
    checked: &mut Checked,
) -> Result<Located<'a>, PgError> {
    checked.start();
    locate(bytes, kind, |keyring, _| checked.require(keyring, Privilege::Decrypt))
}

/// Decrypts a value for a role that may read plaintext, into a datum.
pub fn open_datum(
    bytes: &[u8],
    kind: &Kind,
    context: Option<&[u8]>,
    checked: &mut Checked,
) -> Result<Varlena, PgError> {
    let located = locate_to_read(bytes, kind, checked)?;
    let content = located.envelope.head().content;
    let bare = located.bare_length().filter(|_| context.is_none());
    if let Some((front, length)) = bare.and_then(|length| Some((front(content, length)?, length))) {
        let datum = fill_varlena(front.len() + length, |room| {
            let (start, rest) = room.split_at_mut(front.len());
            start.copy_from_slice(&front);
            located.open_into(rest)
        })?;
        return in_this_encoding(datum, content);
    }
    let value = located.open()?;
    value.require_context(context)?;
    in_this_encoding(value.datum()?, value.head.content)
}

/// What stands before a plaintext of this length in its datum; `None` for one that no value has unless it was altered.
fn front(content: Content, length: usize) -> Option<Vec<u8>> {
    match content {
        Content::Vector => plain_vector::head(length).ok().map(Vec::from),
        Content::Jsonb | Content::JsonText | Content::Text => Some(Vec::new()),
    }
}

/// Refuses what came with its rows from a database of another encoding: ciphertext is never converted.
fn in_this_encoding(datum: Varlena, content: Content) -> Result<Varlena, PgError> {
    check_encoding(datum.bytes(), content)?;
    Ok(datum)
}

fn check_encoding(bytes: &[u8], content: Content) -> Result<(), PgError> {
    let valid = match content {
        Content::Jsonb | Content::JsonText if encoding::is_utf8() => jsonb::is_utf8(bytes)?,
        Content::Jsonb | Content::JsonText => jsonb::all_strings(bytes, encoding::is_valid)?,
        Content::Text => encoding::is_valid(bytes),
        Content::Vector => true,
    };
    if valid { Ok(()) } else { Err(PgError::OtherEncoding) }
}

/// Decrypts a value whose order is told, for a role that may read plaintext.
pub fn read(bytes: &[u8], kind: &Kind, checked: &mut Checked) -> Result<Owned, PgError> {
    let located = locate_to_read(bytes, kind, checked)?;
    let content = located.envelope.head().content;
    let Some(length) = located.bare_length() else {
        let value = located.open()?;
        value.require_context(None)?;
        return Ok(Owned::new(in_this_encoding(value.datum()?, content)?.bytes())?);
    };
    let mut owned = Owned::default();
    owned.fill(length, |room| located.open_into(room))?;
    check_encoding(owned.bytes(), content)?;
    Ok(owned)
}

/// Decrypts a value that is grouped or hashed, for a role that may compare it wherever it comes from: with `search` alone
/// one with tokens, where `declared` finds the policy to be, or one that the role has read from a document in this session.
pub fn look(
    bytes: &[u8],
    kind: &Kind,
    checked: &mut Checked,
    declared: impl FnOnce(&Policy) -> Result<bool, PgError>,
) -> Result<Owned, PgError> {
    checked.start();
    let mut if_made_here = false;
    let located = locate(bytes, kind, |keyring, head| {
        let looked = checked.require_look(keyring, |policy| Ok(head.index_version != 0 && declared(policy)?));
        if_made_here = matches!(looked, Err(PgError::Undeclared(_))) && head.index_version == 0;
        if if_made_here { Ok(()) } else { looked }
    })?;
    match located.bare_length() {
        Some(length) if !if_made_here => {
            let mut owned = Owned::default();
            owned.fill(length, |room| located.open_into(room))?;
            Ok(owned)
        }
        _ => {
            let value = if if_made_here { located.open_made_here()? } else { located.open()? };
            Ok(Owned::new(value.datum()?.bytes())?)
        }
    }
}

/// Decrypts a value for internal use, where the plaintext does not leave, for a role with `privilege`.
pub fn open_for(bytes: &[u8], kind: &Kind, privilege: Privilege) -> Result<OpenValue, PgError> {
    locate(bytes, kind, |keyring, _| session::require(keyring, privilege))?.open()
}

/// Decrypts a text that was sealed for this statement, for a role that may compare or write.
pub fn open_literal(bytes: &[u8]) -> Result<OpenValue, PgError> {
    TEXT.require(&parse_head(bytes)?.0)?;
    open_any_literal(bytes)
}

/// The same of a literal of any type.
pub fn open_any_literal(bytes: &[u8]) -> Result<OpenValue, PgError> {
    let permit = |keyring: &Keyring, _: &Head| {
        if session::has(keyring, Privilege::Search) {
            Ok(())
        } else {
            session::require(keyring, Privilege::Encrypt)
        }
    };
    locate_any(bytes, permit)?.open_literal()
}

/// Decrypts a value whose plaintext becomes one of keyring `target`. Whoever may write a literal may have it moved; of any
/// other value the plaintext would come out there.
pub fn open_to_move(bytes: &[u8], kind: &Kind, target: i32) -> Result<OpenValue, PgError> {
    let value = open_for(bytes, kind, Privilege::Encrypt)?;
    if value.keyring.id != target && !value.is_own() {
        session::require(&value.keyring, Privilege::Decrypt)?;
    }
    Ok(value)
}

/// Finds the key of a value that the role looks into: with `search` alone only a value with tokens, and only where
/// `declared` finds the policy to be. A part of a document has no tokens, and its path is lost.
pub fn locate_to_look<'a>(
    bytes: &'a [u8],
    kind: &Kind,
    checked: &mut Checked,
    declared: impl FnOnce(&Policy) -> Result<bool, PgError>,
) -> Result<Located<'a>, PgError> {
    checked.start();
    locate(bytes, kind, |keyring, head| {
        checked.require_look(keyring, |policy| Ok(head.index_version != 0 && declared(policy)?))
    })
}

/// Was the token section of a value, whose header and tokens these are, made by its index key as a whole? For a role that may
/// look into the value, since something is answered from it in place of decrypting. Without the key nobody can tell.
pub fn vouches_for(
    front: &[u8],
    kind: &Kind,
    checked: &mut Checked,
    declared: impl FnOnce(&Policy) -> Result<bool, PgError>,
) -> Result<bool, PgError> {
    let (head, section) = parse_head(front)?;
    kind.require(&head)?;
    checked.start();
    let keyring = session::keyring(head.keyring)?;
    checked.require_look(&keyring, declared)?;
    // What its data key does not open any more is an error, decided or not.
    let opens = keyring.data_key(head.data_version).is_ok_and(|row| row.state.opens());
    let made_by = keyring.index_keys.iter().find(|(row, _)| row.version == head.index_version);
    let Some((row, policy)) = made_by.filter(|(row, _)| opens && row.state.opens()) else { return Ok(false) };
    let (true, Some(tokens)) =
        (policy.scheme == Scheme::Decide, front.get(section.tokens().start..section.end()))
    else {
        return Ok(false);
    };
    let is_whole = session::index_key(&keyring, row)?.vouches_for(row.version, tokens);
    if is_whole {
        counters::count(Counter::ValuesDecided);
        decrypt_log::record(Done::Decided, &keyring, row.version);
    }
    Ok(is_whole)
}
