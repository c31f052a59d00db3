//! Range filters: `between` and what it is rewritten into.

use pgrx::pg_sys;

use crate::core::between::Between;
use crate::core::canonical;
use crate::core::memory::{self, OutOfMemory};
use crate::core::question::Question;
use crate::core::range::{Bounds, Decimal, Domain, Scalar};
use crate::pg::error::PgError;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::datum::{Varlena, detoast};
use crate::pg::raw::encoding::c_text;
use crate::pg::search::filters;
use crate::pg::search::recheck::OpenDocument;
use crate::pg::values::casts;
use crate::pg::values::seal::JSONB;

/// Microseconds from 1970-01-01 to 2000-01-01, where PostgreSQL counts from.
const EPOCH: i128 = 946_684_800_000_000;

/// `between(encrypted_jsonb, text, numeric, numeric)`, where it was not rewritten. A bound that is NULL is open.
pub fn between_numbers(call: Call) -> Returned {
    between(call, Given::Numbers)
}

/// `between(encrypted_jsonb, text, timestamptz, timestamptz)`.
pub fn between_times(call: Call) -> Returned {
    between(call, Given::Times)
}

/// `between(encrypted_jsonb, text, text, text)`: what literals and parameters without a type come to.
pub fn between_texts(call: Call) -> Returned {
    between(call, Given::Texts)
}

fn between(call: Call, given: Given) -> Returned {
    if call.is_null(0) || call.is_null(1) {
        return Ok(None);
    }
    let between = asked(&call.text(1)?, given, argument(call, 2), argument(call, 3))?;
    let value = call.varlena(0);
    call.with_cache(|open: &mut OpenDocument| {
        open.load(value.bytes(), &JSONB, |policy| Ok(between.is_declared(policy)))?;
        Ok(Some(between.holds(open.document.bytes(), open.reading(&between))?.into()))
    })
}

/// `filter_between(path text, low numeric, high numeric, keyring text)`.
pub fn filter_between_numbers(call: Call) -> Returned {
    filter_between(call, Given::Numbers)
}

/// `filter_between(path text, low timestamptz, high timestamptz, keyring text)`.
pub fn filter_between_times(call: Call) -> Returned {
    filter_between(call, Given::Times)
}

/// `filter_between(path text, low text, high text, keyring text)`.
pub fn filter_between_texts(call: Call) -> Returned {
    filter_between(call, Given::Texts)
}

fn filter_between(call: Call, given: Given) -> Returned {
    if call.is_null(0) {
        return Ok(None);
    }
    let named = call.optional_text(3)?;
    remember_range(call, given, &filters::named_key(&named), |question| {
        filters::make_named(named.as_deref(), question)
    })
}

/// `filter_between_for(path text, low numeric, high numeric, keyring int4)`: what a rewritten `between` with
/// parameters calls; keyring 0 is the session's.
pub fn filter_between_numbers_for(call: Call) -> Returned {
    filter_between_for(call, Given::Numbers)
}

/// `filter_between_for(path text, low timestamptz, high timestamptz, keyring int4)`.
pub fn filter_between_times_for(call: Call) -> Returned {
    filter_between_for(call, Given::Times)
}

/// `filter_between_for(path text, low text, high text, keyring int4)`.
pub fn filter_between_texts_for(call: Call) -> Returned {
    filter_between_for(call, Given::Texts)
}

fn filter_between_for(call: Call, given: Given) -> Returned {
    // Not STRICT, since a bound may be NULL.
    if call.is_null(0) || call.is_null(3) {
        return Ok(None);
    }
    let keyring = call.int4(3);
    remember_range(call, given, &keyring.to_be_bytes(), |question| filters::make_numbered(keyring, question))
}

/// Compares the arguments as they are, so that path and bounds are read once and not for each row.
fn remember_range(
    call: Call,
    given: Given,
    keyring: &[u8],
    make: impl FnOnce(&Question<Varlena>) -> Result<Vec<u8>, PgError>,
) -> Returned {
    let path = call.varlena(0);
    let (low, high) = (argument(call, 1), argument(call, 2));
    let inputs = [keyring, path.bytes(), &as_it_is(given, low)?, &as_it_is(given, high)?];
    filters::remember(call, &inputs, || make(&Question::Between(asked(&call.text(0)?, given, low, high)?)))
}

/// The bytes of a bound; an open end has none.
fn as_it_is(given: Given, bound: Bound) -> Result<Vec<u8>, OutOfMemory> {
    Ok(match (bound, given) {
        (None, _) => Vec::new(),
        (Some(datum), Given::Times) => datum.value().to_be_bytes().to_vec(),
        (Some(datum), Given::Numbers | Given::Texts) => memory::copy(detoast(datum).bytes())?,
    })
}

/// The type that bounds come as.
#[derive(Clone, Copy)]
pub enum Given {
    /// numeric.
    Numbers,
    /// timestamptz.
    Times,
    /// text, to be read as one of the others.
    Texts,
}

impl Given {
    /// What a bound of this type is.
    pub fn of(bound: pg_sys::Oid) -> Self {
        match bound {
            pg_sys::NUMERICOID => Given::Numbers,
            pg_sys::TIMESTAMPTZOID => Given::Times,
            _ => Given::Texts,
        }
    }
}

/// A bound as a datum, or none for an open end.
pub type Bound = Option<pg_sys::Datum>;

fn argument(call: Call, index: usize) -> Bound {
    (!call.is_null(index)).then(|| call.datum(index))
}

/// What is asked with these arguments.
pub fn asked(path: &str, given: Given, low: Bound, high: Bound) -> Result<Between, PgError> {
    let (domain, low, high) = match given {
        Given::Numbers => (Domain::Numbers, low, high),
        Given::Times => (Domain::Times, low, high),
        Given::Texts => read(low, high)?,
    };
    let bounds = Bounds { domain, low: bound(domain, low)?, high: bound(domain, high)? };
    Ok(Between::new(path, bounds)?)
}

/// Numbers where all bounds read as such, else times.
fn read(low: Bound, high: Bound) -> Result<(Domain, Bound, Bound), PgError> {
    if low.is_none() && high.is_none() {
        return Err(PgError::OpenBounds);
    }
    for (domain, of) in [(Domain::Numbers, pg_sys::NUMERICOID), (Domain::Times, pg_sys::TIMESTAMPTZOID)] {
        if let (Some(low), Some(high)) = (read_as(low, of)?, read_as(high, of)?) {
            return Ok((domain, low, high));
        }
    }
    Err(PgError::UnreadableBounds)
}

/// `None` where the text is not of the type.
fn read_as(bound: Bound, of: pg_sys::Oid) -> Result<Option<Bound>, PgError> {
    let Some(text) = bound else { return Ok(Some(None)) };
    match casts::read_as(&c_text(detoast(text).bytes())?, of) {
        Ok(datum) => Ok(Some(Some(datum))),
        Err(PgError::Unreadable(..)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// An infinite time is an open end.
fn bound(domain: Domain, datum: Bound) -> Result<Option<Scalar>, PgError> {
    let Some(datum) = datum else { return Ok(None) };
    match domain {
        Domain::Numbers => number(datum).map(Some),
        Domain::Times => {
            let time = datum.value() as i64;
            Ok((time != i64::MIN && time != i64::MAX).then(|| Scalar::Time(i128::from(time) + EPOCH)))
        }
    }
}

fn number(datum: pg_sys::Datum) -> Result<Scalar, PgError> {
    let mut canonical = Vec::new();
    let finite = canonical::number(detoast(datum).bytes(), &mut canonical).ok();
    let decimal = finite.and_then(|()| Decimal::new(canonical));
    let decimal =
        decimal.ok_or_else(|| PgError::Argument("a bound must be a finite number; NULL is open".into()))?;
    Ok(Scalar::Number(decimal))
}
