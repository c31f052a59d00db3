//! What sorts, groups and joins encrypted values: their plaintexts do, which stay in this process. What PostgreSQL writes to
//! temporary files is ciphertext, and hashes under a key that nobody else has.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::hash::{BuildHasher, RandomState};
use std::rc::{Rc, Weak};

use once_cell::unsync::OnceCell;
use pgrx::pg_sys;
use zeroize::Zeroizing;

use crate::core::group_key::GroupKey;
use crate::core::header::parse_head;
use crate::core::memory;
use crate::core::numbered::Numbered;
use crate::core::policy::Policy;
use crate::core::recent::Recent;
use crate::pg::error::PgError;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::datum::{Owned, Stored, Varlena, detoast, type_id_name};
use crate::pg::raw::sort::{self, Order};
use crate::pg::raw::{analyze, array, jsonb, text};
use crate::pg::session::{self, Checked, Privilege};
use crate::pg::values::plain_vector;
use crate::pg::values::seal::{self, JSONB, Kind, TEXT, VECTOR};

thread_local! {
    static KEY: OnceCell<GroupKey> = const { OnceCell::new() };
}

/// What a value may be decrypted for.
#[derive(Clone, Copy)]
enum Purpose {
    /// To be told from others: what `=` needs.
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
        if is_vector(kind) {
            let opened = seal::open_for(sealed.bytes(), kind, Privilege::Decrypt)?;
            opened.require_context(None)?;
            return Ok(Owned::new(opened.content())?);
        }
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
pub struct Opened {
    /// The role and the state of keys and grants that they were opened under.
    under: Option<(pg_sys::Oid, u64)>,
    recent: Recent<Rc<Owned>>,
    /// The value that was opened last and not kept: its sealed bytes and its plaintext.
    last: Vec<u8>,
    last_plain: Option<Rc<Owned>>,
}

impl Default for Opened {
    fn default() -> Self {
        Opened { under: None, recent: Recent::new(sort::budget()), last: Vec::new(), last_plain: None }
    }
}

impl Opened {
    /// What is known of a value for the role and the keys of now.
    fn known(&mut self, sealed: &[u8]) -> Result<Option<Rc<Owned>>, PgError> {
        let under = Some(session::now());
        if self.under != under {
            self.recent.clear();
            self.last_plain = None;
            self.under = under;
        }
        if let Some(plain) = self.last_plain.as_ref().filter(|_| self.last == sealed) {
            return Ok(Some(plain.clone()));
        }
        Ok(self.recent.get(sealed)?.cloned())
    }

    /// A value's plaintext, which is kept.
    pub fn plain(
        &mut self,
        value: pg_sys::Datum,
        open: impl FnOnce() -> Result<Owned, PgError>,
    ) -> Result<Rc<Owned>, PgError> {
        let stored = Stored::of(value);
        if let Some(plain) = self.known(stored.bytes())? {
            return Ok(plain);
        }
        let plain = Rc::new(open()?);
        // Opening may have brought news of keys and grants.
        if self.under == Some(session::now()) {
            self.recent.put(stored.bytes(), plain.clone(), plain.bytes().len())?;
        }
        Ok(plain)
    }

    /// The plaintext of a value that is looked at again before any other, if at all.
    fn passing(
        &mut self,
        value: pg_sys::Datum,
        open: impl FnOnce() -> Result<Owned, PgError>,
    ) -> Result<Rc<Owned>, PgError> {
        let stored = Stored::of(value);
        if let Some(plain) = self.known(stored.bytes())? {
            return Ok(plain);
        }
        self.last_plain = None;
        let plain = Rc::new(open()?);
        self.last.clear();
        memory::append(&mut self.last, stored.bytes())?;
        self.last_plain = (self.under == Some(session::now())).then(|| plain.clone());
        Ok(plain)
    }
}

thread_local! {
    /// Texts and documents that are grouped, as long as anybody groups them: what hashes a value and what compares it are
    /// different functions.
    static GROUPED: [RefCell<Weak<RefCell<Opened>>>; 2] = Default::default();
}

/// What a hash join or a group has of values of this type; `None` where nobody hashes any.
fn grouped(kind: &Kind) -> Option<Rc<RefCell<Opened>>> {
    GROUPED.with(|grouped| grouped[usize::from(is_text(kind))].borrow().upgrade())
}

/// The plaintext of a value that a hash join compares, which may have been opened to be hashed: then the role may compare it
/// wherever it comes from. `None` where nobody hashes.
pub fn joined(
    value: pg_sys::Datum,
    kind: &Kind,
    site: &mut Opened,
    open: impl FnOnce() -> Result<Owned, PgError>,
) -> Option<Result<Rc<Owned>, PgError>> {
    let grouped = grouped(kind)?;
    let known = grouped.borrow_mut().known(Stored::of(value).bytes());
    Some(match known {
        Ok(None) => site.plain(value, open),
        Ok(Some(plain)) => Ok(plain),
        Err(error) => Err(error),
    })
}

/// What a call site keeps that groups values.
#[derive(Default)]
struct Grouping {
    checked: Checked,
    opened: Option<Rc<RefCell<Opened>>>,
}

impl Grouping {
    fn of(&mut self, kind: &Kind) -> (&mut Checked, Rc<RefCell<Opened>>) {
        let shared = self.opened.get_or_insert_with(|| {
            GROUPED.with(|grouped| {
                let mut shared = grouped[usize::from(is_text(kind))].borrow_mut();
                shared.upgrade().unwrap_or_else(|| {
                    let opened = Rc::default();
                    *shared = Rc::downgrade(&opened);
                    opened
                })
            })
        });
        (&mut self.checked, shared.clone())
    }

    fn hashed(&mut self, value: pg_sys::Datum, kind: &Kind) -> Result<Rc<Owned>, PgError> {
        let (checked, opened) = self.of(kind);
        opened.borrow_mut().passing(value, || Purpose::Group.open(value, kind, checked))
    }

    fn plain(&mut self, value: pg_sys::Datum, kind: &Kind) -> Result<Rc<Owned>, PgError> {
        let (checked, opened) = self.of(kind);
        opened.borrow_mut().plain(value, || Purpose::Group.open(value, kind, checked))
    }
}

/// What one call site or one sort puts in order.
#[derive(Default)]
struct Ordered {
    checked: Checked,
    opened: Opened,
}

impl Ordered {
    fn plain(&mut self, value: pg_sys::Datum, kind: &Kind) -> Result<Rc<Owned>, PgError> {
        let Ordered { checked, opened } = self;
        opened.plain(value, || Purpose::Order.open(value, kind, checked))
    }
}

fn order(kind: &Kind, left: &Owned, right: &Owned) -> Ordering {
    if is_text(kind) {
        text::order(left, right)
    } else if is_vector(kind) {
        plain_vector::order(left.bytes(), right.bytes())
    } else {
        jsonb::order(left, right)
    }
}

fn is_vector(kind: &Kind) -> bool {
    std::ptr::eq(kind, &raw const VECTOR)
}

/// The same for plaintexts that are equal though their bytes differ.
fn hashable(kind: &Kind, plain: &Owned) -> Result<Zeroizing<Vec<u8>>, PgError> {
    Ok(Zeroizing::new(if is_text(kind) {
        memory::copy(plain.bytes())?
    } else if is_vector(kind) {
        plain_vector::hashable(plain.bytes())?
    } else {
        jsonb::hash(plain).to_be_bytes().to_vec()
    }))
}

fn is_text(kind: &Kind) -> bool {
    std::ptr::eq(kind, &raw const TEXT)
}

/// The order of one sort.
struct Sort {
    kind: &'static Kind,
    hasher: RandomState,
    ordered: Ordered,
    numbered: Numbered<Rc<Owned>>,
}

impl Sort {
    fn plain(&mut self, value: pg_sys::Datum) -> Result<Rc<Owned>, PgError> {
        match self.numbered.of(Stored::of(value).bytes()) {
            Some(plain) => Ok(plain.clone()),
            None => self.ordered.plain(value, self.kind),
        }
    }
}

impl Order for Sort {
    fn compare(&mut self, left: pg_sys::Datum, right: pg_sys::Datum) -> Result<Ordering, PgError> {
        let (left, right) = (self.plain(left)?, self.plain(right)?);
        Ok(if Rc::ptr_eq(&left, &right) { Ordering::Equal } else { order(self.kind, &left, &right) })
    }

    fn shorten(&mut self, value: pg_sys::Datum) -> Result<u64, PgError> {
        let kind = self.kind;
        let plain = Rc::new(Purpose::Order.open(value, kind, &mut self.ordered.checked)?);
        let hash = self.hasher.hash_one(hashable(kind, &plain)?.as_slice());
        let bytes = plain.bytes().len();
        let equal = |left: &Rc<Owned>, right: &Rc<Owned>| order(kind, left, right).is_eq();
        Ok(self.numbered.number(Stored::of(value).bytes(), (plain, bytes), hash, equal)?)
    }

    fn compare_short(&self, left: u64, right: u64) -> Ordering {
        if left == right {
            return Ordering::Equal;
        }
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

/// `vector_order(internal)`: sort support of encrypted_vector.
pub fn vector_order(call: Call) -> Returned {
    sorted(call, &VECTOR)
}

fn sorted(call: Call, kind: &'static Kind) -> Returned {
    let numbered = Numbered::new(sort::budget());
    let sort = Sort { kind, hasher: RandomState::new(), ordered: Ordered::default(), numbered };
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
    let plain = seal::with_kind(call, |kind, grouping: &mut Grouping| {
        let plain = listed(call, kind).unwrap_or_else(|| grouping.hashed(call.datum(0), kind))?;
        Ok::<_, PgError>((kind, plain))
    });
    let (kind, plain) = plain?;
    let hash = KEY.with(|key| {
        let key = key.get_or_try_init(GroupKey::new)?;
        Ok::<_, PgError>(key.hash(&hashable(kind, &plain)?))
    });
    Ok(Some(pg_sys::Datum::from(hash? as i32)))
}

/// A literal of a list that is hashed: whoever may compare it need not have typed it, as in a view.
fn listed(call: Call, kind: &Kind) -> Option<Result<Rc<Owned>, PgError>> {
    if !call.searches_list() || !is_text(kind) {
        return None;
    }
    let value = call.varlena(0);
    let is_literal = parse_head(value.bytes()).is_ok_and(|(head, _)| head.transit);
    is_literal.then(|| {
        let opened = seal::open_literal(value.bytes())?;
        Ok(Rc::new(Owned::new(opened.content())?))
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
    call.with_cache(|grouping: &mut Grouping| {
        let (left, right) = (grouping.plain(left, kind)?, grouping.plain(right, kind)?);
        Ok(order(kind, &left, &right).is_eq())
    })
}

/// What `<` and the like find, for a role that may decrypt.
fn ordered(call: Call) -> Result<Ordering, PgError> {
    seal::with_kind(call, |kind, ordered: &mut Ordered| {
        let (left, right) = (ordered.plain(call.datum(0), kind)?, ordered.plain(call.datum(1), kind)?);
        Ok(order(kind, &left, &right))
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

/// `encrypted_vector *= encrypted_vector`: for groups.
pub fn same(call: Call) -> Returned {
    Ok(Some(are_equal(call, &VECTOR)?.into()))
}

/// `largest(encrypted_*[])`: GREATEST.
pub fn largest(call: Call) -> Returned {
    extreme(call, Ordering::Greater)
}

/// `smallest(encrypted_*[])`: LEAST.
pub fn smallest(call: Call) -> Returned {
    extreme(call, Ordering::Less)
}

/// The first of the values that no other is `beyond`; NULLs do not count.
fn extreme(call: Call, beyond: Ordering) -> Returned {
    let values = array::values(call.datum(0))?;
    call.with_cache(|(kind, ordered): &mut (Option<&'static Kind>, Ordered)| {
        let kind = kind.get_or_insert_with(|| Kind::named(&type_id_name(call.result_type())));
        let mut found: Option<Varlena> = None;
        for value in values.into_iter().flatten() {
            let replaces = match &found {
                Some(best) => {
                    let (one, other) =
                        (ordered.plain(value.datum(), kind)?, ordered.plain(best.datum(), kind)?);
                    order(kind, &one, &other) == beyond
                }
                None => true,
            };
            if replaces {
                found = Some(value);
            }
        }
        Ok(found.map(|value| value.datum()))
    })
}
