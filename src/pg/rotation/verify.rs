//! Whether stored values are authentic: a verdict on each value where everything else would raise an error.
//! The loops are in sql/verify.sql.

use std::collections::HashMap;

use crate::core::envelope::Envelope;
use crate::core::header::Head;
use crate::kms::Class;
use crate::pg::error::PgError;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::record::{self, Field};
use crate::pg::session::{self, Checked, Privilege};
use crate::pg::values::seal::{self, JSONB, Kind, TEXT, VECTOR};

/// What a call site knows of the keys that it asked for.
#[derive(Default)]
struct Checking {
    checked: Checked,
    /// Keys that cannot be had and why: a KMS that is away is not asked again for every value.
    missing: HashMap<(i32, u16), String>,
}

/// The context that a value should be bound to, where the caller knows one.
enum Expected<'a> {
    Anything,
    Context(Option<&'a [u8]>),
}

/// What was found out about one value.
pub struct Verdict {
    /// authentic, moved, unreadable or corrupt.
    pub result: &'static str,
    /// `None` where the bytes have no header.
    pub head: Option<Head>,
    /// Empty where there is nothing to say.
    pub finding: String,
}

/// `check_value(encrypted_jsonb, context text, context_known boolean)`: result, keyring, key version, finding. NULL
/// for NULL.
pub fn check_jsonb(call: Call) -> Returned {
    check(call, &JSONB)
}

/// `check_value(encrypted_text, context text, context_known boolean)`.
pub fn check_text(call: Call) -> Returned {
    check(call, &TEXT)
}

/// `check_value(encrypted_vector, context text, context_known boolean)`.
pub fn check_vector(call: Call) -> Returned {
    check(call, &VECTOR)
}

fn check(call: Call, kind: &Kind) -> Returned {
    let Some(Verdict { result, head, finding }) = verdict(call, kind)? else { return Ok(None) };
    let keyring = Field::Int4(head.map(|head| head.keyring));
    let version = Field::Int4(head.map(|head| head.data_version.into()));
    let finding = Field::Text(Some(&*finding).filter(|finding| !finding.is_empty()));
    record::row(call, [result.into(), keyring, version, finding])
}

/// On the value that `check_value` is called with; `None` for NULL.
pub fn verdict(call: Call, kind: &Kind) -> Result<Option<Verdict>, PgError> {
    let Some(value) = call.optional(0) else { return Ok(None) };
    let context = call.optional(1);
    let expected = if call.boolean(2) {
        Expected::Context(context.as_ref().map(|context| context.bytes()))
    } else {
        Expected::Anything
    };
    call.with_cache(|checking: &mut Checking| {
        checking.checked.start();
        checking.judge(value.bytes(), kind, &expected).map(Some)
    })
}

impl Checking {
    fn judge(&mut self, bytes: &[u8], kind: &Kind, expected: &Expected<'_>) -> Result<Verdict, PgError> {
        let envelope = match Envelope::parse(bytes) {
            Ok(envelope) => envelope,
            Err(error) => return Ok(Verdict::new("corrupt", None, error.to_string())),
        };
        let head = envelope.head();
        let verdict = |result, finding: &str| Ok(Verdict::new(result, Some(head), finding.to_owned()));
        let key = (head.keyring, head.data_version);
        if let Some(why) = self.missing.get(&key) {
            return verdict("unreadable", why);
        }
        let located =
            match seal::locate_any(bytes, |keyring, _| self.checked.require(keyring, Privilege::Decrypt)) {
                Ok(located) => located,
                Err(PgError::Kms(_, error)) if error.class() == Class::Cancelled => {
                    return Err(PgError::Kms(session::keyring_label(head.keyring), error));
                }
                Err(error) => {
                    let why = error.to_string();
                    self.missing.insert(key, why.clone());
                    return verdict("unreadable", &why);
                }
            };
        let Ok(opened) = located.open() else {
            return verdict("corrupt", "authentication failed");
        };
        if !kind.holds(head.content) {
            return verdict("corrupt", "authentic, but not of the column's type");
        }
        match expected {
            Expected::Anything if envelope.is_bound() => {
                verdict("authentic", "bound to a context that was not checked")
            }
            Expected::Context(_) if !envelope.is_bound() => verdict("authentic", "not bound to a context"),
            Expected::Context(None) => verdict("moved", "bound to a context, and the expression gives NULL"),
            Expected::Context(context) if opened.require_context(*context).is_err() => {
                verdict("moved", "bound to another context")
            }
            _ => verdict("authentic", ""),
        }
    }
}

impl Verdict {
    fn new(result: &'static str, head: Option<Head>, finding: String) -> Self {
        Verdict { result, head, finding }
    }
}
