//! What sorts, groups and joins encrypted values: their plaintexts do, which stay in this process. What PostgreSQL writes to
//! temporary files is ciphertext, and hashes under a key that nobody else has.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::rc::Rc;

use once_cell::unsync::OnceCell;
use pgrx::pg_sys;

use crate::core::group_key::GroupKey;
use crate::core::header::parse_head;
use crate::core::memory;
use crate::core::policy::Policy;
use crate::pg::error::PgError;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::datum::{Owned, Stored, detoast};
use crate::pg::raw::sort::{self, Order};
use crate::pg::raw::{analyze, jsonb, text};
use crate::pg::session::{self, Checked};
use crate::pg::values::seal::{self, JSONB, Kind, TEXT};

thread_local! {
    static KEY: OnceCell<GroupKey> = const { OnceCell::new() };
}

/// Memory for an entry beside its bytes.
const ENTRY: usize = 128;

/// What a value may be decrypted for.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Purpose {
    /// To be told from others: what `=` needs.
    #[default]
    Group,
    /// To be put in order: `decrypt`.
    Order,
}

impl Purpose {
    fn open(self, value: pg_sys::Datum, kind: &Kind, checked: &mut Checked) -> Result<Owned, PgError> {
        if sort::in_worker() {
            return Err(PgError::InWorker);
        }
        let sealed = detoast(value);
        match self {
            Purpose::Order => seal::read(sealed.bytes(), kind, checked),
            Purpose::Group => {
                seal::look(sealed.bytes(), kind, checked, |policy| Ok(is_declared(kind, policy)))
            }
        }
    }
}

/// A whole text is searchable by its own path; a document only where all is.
fn is_declared(kind: &Kind, policy: &Policy) -> bool {
    if is_text(kind) { policy.covers_scalar(&[], 0) } else { policy.covers_everything() }
}

/// Plaintexts of values that come up again and again, wiped when it is dropped.
#[derive(Default)]
struct Opened {
    purpose: Purpose,
    checked: Checked,
    /// The role and the state of keys and grants that they were opened under.
    under: Option<(pg_sys::Oid, u64)>,
    /// By the sealed bytes.
    found: HashMap<Vec<u8>, Rc<Owned>>,
    bytes: usize,
}

impl Opened {
    fn to(purpose: Purpose) -> Self {
        Opened { purpose, ..Opened::default() }
    }

    fn open(&mut self, value: pg_sys::Datum, kind: &Kind) -> Result<Rc<Owned>, PgError> {
        Ok(Rc::new(self.purpose.open(value, kind, &mut self.checked)?))
    }

    fn forget(&mut self) {
        self.found.clear();
        self.bytes = 0;
    }

    /// A value's plaintext; all others are forgotten where there is no more room.
    fn plain(&mut self, value: pg_sys::Datum, kind: &Kind) -> Result<Rc<Owned>, PgError> {
        let under = Some(session::now());
        if self.under != under {
            self.forget();
            self.under = under;
        }
        let stored = Stored::of(value);
        if let Some(plain) = self.found.get(stored.bytes()) {
            return Ok(plain.clone());
        }
        let plain = self.open(value, kind)?;
        let bytes = stored.bytes().len() + plain.bytes().len() + ENTRY;
        if self.bytes + bytes > sort::budget() {
            self.forget();
        }
        self.bytes += bytes;
        insert(&mut self.found, memory::copy(stored.bytes())?, plain.clone())?;
        Ok(plain)
    }

    fn order(&mut self, left: pg_sys::Datum, right: pg_sys::Datum, kind: &Kind) -> Result<Ordering, PgError> {
        let (left, right) = (self.plain(left, kind)?, self.plain(right, kind)?);
        Ok(order(kind, &left, &right))
    }
}

fn insert<K: Eq + Hash, V>(map: &mut HashMap<K, V>, key: K, value: V) -> Result<(), PgError> {
    map.try_reserve(1).map_err(|_| memory::OutOfMemory)?;
    map.insert(key, value);
    Ok(())
}

fn order(kind: &Kind, left: &Owned, right: &Owned) -> Ordering {
    if is_text(kind) { text::order(left, right) } else { jsonb::order(left, right) }
}

fn is_text(kind: &Kind) -> bool {
    std::ptr::eq(kind, &raw const TEXT)
}

/// Distinct plaintexts, each with a number that stands for it: equal values get the same one. What does not fit any more has
/// none, and never gets one.
#[derive(Default)]
struct Numbered {
    hasher: RandomState,
    plain: Vec<Rc<Owned>>,
    by_hash: HashMap<u64, Vec<usize>>,
    /// By the sealed bytes.
    found: HashMap<Vec<u8>, usize>,
    bytes: usize,
    is_full: bool,
}

impl Numbered {
    /// Stands for what has no number.
    const NONE: u64 = u64::MAX;

    fn number(&mut self, stored: &[u8], plain: Rc<Owned>, kind: &Kind) -> Result<u64, PgError> {
        let hash = if is_text(kind) { self.hasher.hash_one(plain.bytes()) } else { jsonb::hash(&plain) };
        let known = self.by_hash.get(&hash).into_iter().flatten();
        let known = known.copied().find(|at| order(kind, &self.plain[*at], &plain).is_eq());
        let bytes = stored.len() + ENTRY + if known.is_some() { 0 } else { plain.bytes().len() + ENTRY };
        self.is_full |= self.bytes + bytes > sort::budget();
        if self.is_full {
            return Ok(known.map_or(Self::NONE, |at| at as u64));
        }
        self.bytes += bytes;
        let at = known.unwrap_or(self.plain.len());
        if known.is_none() {
            memory::push(&mut self.plain, plain)?;
            self.by_hash.try_reserve(1).map_err(|_| memory::OutOfMemory)?;
            memory::push(self.by_hash.entry(hash).or_default(), at)?;
        }
        insert(&mut self.found, memory::copy(stored)?, at)?;
        Ok(at as u64)
    }

    fn plain(&self, number: u64) -> Option<&Owned> {
        usize::try_from(number).ok().and_then(|at| self.plain.get(at)).map(Rc::as_ref)
    }
}

/// The order of one sort.
struct Sort {
    kind: &'static Kind,
    opened: Opened,
    numbered: Numbered,
}

impl Sort {
    fn plain(&mut self, value: pg_sys::Datum) -> Result<Rc<Owned>, PgError> {
        match self.numbered.found.get(Stored::of(value).bytes()) {
            Some(at) => Ok(self.numbered.plain[*at].clone()),
            None => self.opened.plain(value, self.kind),
        }
    }
}

impl Order for Sort {
    fn compare(&mut self, left: pg_sys::Datum, right: pg_sys::Datum) -> Result<Ordering, PgError> {
        let (left, right) = (self.plain(left)?, self.plain(right)?);
        Ok(order(self.kind, &left, &right))
    }

    fn shorten(&mut self, value: pg_sys::Datum) -> Result<u64, PgError> {
        let plain = self.opened.open(value, self.kind)?;
        self.numbered.number(Stored::of(value).bytes(), plain, self.kind)
    }

    fn compare_short(&self, left: u64, right: u64) -> Ordering {
        match (self.numbered.plain(left), self.numbered.plain(right)) {
            (Some(left), Some(right)) => order(self.kind, left, right),
            // The values themselves are looked at.
            _ => Ordering::Equal,
        }
    }
}

/// `text_order(internal)`: sort support of encrypted_text.
pub fn text_order(call: Call) -> Returned {
    sorted(call, &TEXT)
}

/// `jsonb_order(internal)`: sort support of encrypted_jsonb.
pub fn jsonb_order(call: Call) -> Returned {
    sorted(call, &JSONB)
}

fn sorted(call: Call, kind: &'static Kind) -> Returned {
    let sort = Sort { kind, opened: Opened::to(Purpose::Order), numbered: Numbered::default() };
    sort::support(call, Box::new(sort));
    // It returns void, which is not NULL.
    Ok(Some(pg_sys::Datum::from(0)))
}

/// Refuses an index: it would keep an order or hashes of plaintexts on disk.
pub fn no_index(_call: Call) -> Returned {
    Err(PgError::NoIndex)
}

/// `hash(encrypted_*)`: equal for values whose plaintexts are equal, in this process.
pub fn hash(call: Call) -> Returned {
    let plain = seal::with_kind(call, |kind, checked: &mut Checked| {
        let plain =
            listed(call, kind).unwrap_or_else(|| Purpose::Group.open(call.datum(0), kind, checked))?;
        Ok::<_, PgError>((kind, plain))
    });
    let (kind, plain) = plain?;
    let hash = KEY.with(|key| {
        let key = key.get_or_try_init(GroupKey::new)?;
        Ok::<_, PgError>(if is_text(kind) {
            key.hash(plain.bytes())
        } else {
            key.hash(&jsonb::hash(&plain).to_be_bytes())
        })
    });
    Ok(Some(pg_sys::Datum::from(hash? as i32)))
}

/// A literal of a list that is hashed: whoever may compare it need not have typed it, as in a view.
fn listed(call: Call, kind: &Kind) -> Option<Result<Owned, PgError>> {
    if !call.searches_list() || !is_text(kind) {
        return None;
    }
    let value = call.varlena(0);
    let is_literal = parse_head(value.bytes()).is_ok_and(|(head, _)| head.transit);
    is_literal.then(|| {
        let opened = seal::open_literal(value.bytes())?;
        Ok(Owned::new(opened.content())?)
    })
}

/// Are two values equal that are grouped? No expression says where they come from. ANALYZE of rows or arrays with such
/// values has no keys, and must not need them: it counts equal bytes. A subscription finds a row by them.
pub fn are_equal(call: Call, kind: &'static Kind) -> Result<bool, PgError> {
    let (left, right) = (call.datum(0), call.datum(1));
    let analyzes = analyze::is_running();
    if analyzes || sort::in_subscription() {
        let equal = detoast(left).bytes() == detoast(right).bytes();
        if equal || analyzes {
            return Ok(equal);
        }
    }
    let order = call.with_cache(|opened: &mut Opened| opened.order(left, right, kind))?;
    Ok(order == Ordering::Equal)
}

/// What `<` and the like find, for a role that may decrypt.
fn ordered(call: Call) -> Result<Ordering, PgError> {
    seal::with_kind(call, |kind, opened: &mut Opened| {
        opened.purpose = Purpose::Order;
        opened.order(call.datum(0), call.datum(1), kind)
    })
}

/// `encrypted_* *< encrypted_*`.
pub fn less(call: Call) -> Returned {
    Ok(Some(ordered(call)?.is_lt().into()))
}

/// `encrypted_* *<= encrypted_*`.
pub fn less_or_equal(call: Call) -> Returned {
    Ok(Some(ordered(call)?.is_le().into()))
}

/// `encrypted_* *>= encrypted_*`.
pub fn greater_or_equal(call: Call) -> Returned {
    Ok(Some(ordered(call)?.is_ge().into()))
}

/// `encrypted_* *> encrypted_*`.
pub fn greater(call: Call) -> Returned {
    Ok(Some(ordered(call)?.is_gt().into()))
}

/// `larger(encrypted_text, encrypted_text)`: for max.
pub fn larger(call: Call) -> Returned {
    Ok(Some(call.datum(ordered(call)?.is_lt().into())))
}

/// `smaller(encrypted_text, encrypted_text)`: for min.
pub fn smaller(call: Call) -> Returned {
    Ok(Some(call.datum(ordered(call)?.is_gt().into())))
}
