//! What operators look at and set: the counts of a session, its keys and its KMS.

use pgrx::pg_sys;

use crate::keys::context::Purpose;
use crate::keys::shared;
use crate::kms::Token;
use crate::pg::counters;
use crate::pg::error::PgError;
use crate::pg::raw::call::{Call, Returned};
use crate::pg::raw::datum::varlena;
use crate::pg::raw::record::{self, Field};
use crate::pg::raw::shmem;
use crate::pg::session;
use crate::pg::settings;

/// `counter(name text)`: a count of this session.
pub fn counter(call: Call) -> Returned {
    let count = counters::named(&call.text(0)?);
    let count = count.ok_or_else(|| PgError::Argument("there is no such counter".into()))?;
    Ok(Some(pg_sys::Datum::from(count as i64)))
}

/// `kms_endpoint()`: the setting; NULL where it is not set.
pub fn kms_endpoint(_: Call) -> Returned {
    Ok(settings::kms_endpoint().map(|endpoint| varlena(endpoint.as_bytes()).datum()))
}

/// `set_kms_token(token text)`; NULL goes back to the server's credentials. The setting behind it makes RESET ALL,
/// DISCARD ALL and a rollback take the token away.
pub fn set_kms_token(call: Call) -> Returned {
    use_token(call, false)
}

/// `set_kms_token(token text, is_local boolean)`: with `is_local` the transaction's end takes the token away, too, as it does
/// to SET LOCAL. A pooler may give the connection to somebody else then.
pub fn set_kms_token_local(call: Call) -> Returned {
    let is_local = !call.is_null(1) && call.boolean(1);
    if is_local && call.is_null(0) {
        return Err(PgError::Argument(
            "a transaction can have a KMS token of its own, but not do without one".into(),
        ));
    }
    if is_local && settings::is_token_given() && !session::is_token_local() {
        return Err(PgError::TokenOfSession);
    }
    use_token(call, is_local)
}

fn use_token(call: Call, is_local: bool) -> Returned {
    let text = call.optional_text(0)?.map(zeroize::Zeroizing::new);
    let token = text.as_ref().map(|text| {
        let token = Token::parse(text);
        token.ok_or_else(|| PgError::Argument("a KMS token is one word of printable ASCII".into()))
    });
    let token = token.transpose()?;
    let given = token.is_some();
    session::use_token(token, is_local);
    settings::set_token_given(given, is_local);
    Ok(None)
}

/// `kms_problem(keyring text)`: what is wrong with the keyring's KMS and what to do; NULL where all is well.
pub fn kms_problem(call: Call) -> Returned {
    let problem = problem_of_kms(&call.text(0)?)?;
    let said = problem.as_ref().map(PgError::to_string);
    let hint = problem.as_ref().and_then(PgError::hint);
    record::row(call, [Field::Text(said.as_deref()), Field::Text(hint.as_deref())])
}

/// Asks a keyring's KMS for its active data key, and its index key where another one wraps it, whatever is cached.
pub fn problem_of_kms(keyring: &str) -> Result<Option<PgError>, PgError> {
    let keyring = session::keyring(session::keyring_id(keyring)?)?;
    let mut rows = vec![(Purpose::Data, keyring.active_data()?)];
    if keyring.kms_search_key.is_some() {
        rows.push((Purpose::Index, &keyring.active_index()?.0));
    }
    Ok(rows.into_iter().find_map(|(purpose, row)| session::unwrapped(&keyring, purpose, row).err()))
}

/// `shared_keys_held()`: how many keys are shared now; NULL where the library is not preloaded.
pub fn shared_keys_held(_: Call) -> Returned {
    let held = shmem::read(shared::held);
    Ok(held.map(|held| pg_sys::Datum::from(held as i64)))
}

/// `require_shared_keys()`: an error where the library is not preloaded.
pub fn require_shared_keys(_: Call) -> Returned {
    if shmem::is_there() { Ok(None) } else { Err(PgError::NotPreloaded) }
}
