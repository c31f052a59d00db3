//! `pgseal.log_decrypts`: who decrypts how much under which keys, in the server's log, and what a filter found without that,
//! because tokens decided. Never a value.
//!
//! For each keyring and role, and for either of the two, one line when a statement comes to its first value, so that a backend that dies has left it, and
//! one with the counts at the statement's end. A parallel worker logs for itself.

use std::cell::RefCell;
use std::collections::BTreeMap;

use pgrx::log;

use super::permits::role;
use crate::pg::catalog::Keyring;
use crate::pg::raw::{statement, xact};
use crate::pg::settings;

/// What is done with values.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Done {
    /// Decrypted, under a data key.
    Decrypted,
    /// Found by tokens that decide, of an index key.
    Decided,
}

impl Done {
    /// What is being done, what has been done, and with which key.
    fn words(self) -> [&'static str; 3] {
        match self {
            Done::Decrypted => ["decrypting", "decrypted", "key version"],
            Done::Decided => ["deciding", "decided", "index key version"],
        }
    }
}

/// What one statement has done with values of one keyring for one role.
struct Use {
    keyring: String,
    /// Role, database and application, as they were at the first value.
    who: String,
    /// Values by key version.
    values: BTreeMap<u16, u64>,
}

/// Keyring, role and what is done.
type Place = (i32, u32, Done);

thread_local! {
    static USES: RefCell<BTreeMap<Place, Use>> = const { RefCell::new(BTreeMap::new()) };
}

/// A value is about to be decrypted, or to be said something of.
pub fn record(done: Done, keyring: &Keyring, version: u16) {
    if !settings::logs_decrypts() {
        return;
    }
    let known = USES.with_borrow_mut(|uses| {
        uses.get_mut(&place(done, keyring))
            .map(|used| *used.values.entry(version).or_default() += 1)
            .is_some()
    });
    if !known {
        begin(done, keyring, version);
    }
}

/// A cursor may go on under another role than it was opened by.
fn place(done: Done, keyring: &Keyring) -> Place {
    (keyring.id, role().to_u32(), done)
}

fn begin(done: Done, keyring: &Keyring, version: u16) {
    let (who, [doing, _, key]) = (who(), done.words());
    log!("pgseal: {doing} begins: keyring {}, {key} {version}, {who}", quoted(&keyring.name));
    let first = Use { keyring: quoted(&keyring.name), who, values: BTreeMap::from([(version, 1)]) };
    USES.with_borrow_mut(|uses| uses.insert(place(done, keyring), first));
}

/// The statement that a client sent has ended, or its transaction.
pub fn statement_ended() {
    for ((.., done), used) in USES.take() {
        let [_, done, key] = done.words();
        let total: u64 = used.values.values().sum();
        let versions: Vec<String> =
            used.values.iter().map(|(version, number)| format!("{number} under {key} {version}")).collect();
        log!(
            "pgseal: {done} {total} values: keyring {}, {}, {}",
            used.keyring,
            versions.join(", "),
            used.who
        );
    }
}

fn who() -> String {
    let (role, login) = (role(), xact::session_role());
    let mut who = format!("role {}", quoted(&statement::role_name(role)));
    if role != login {
        who += &format!(" (logged in as {})", quoted(&statement::role_name(login)));
    }
    let (database, application) = (statement::database_name(), statement::application_name());
    who + &format!(", database {}, application {}", quoted(&database), quoted(&application))
}

/// In quotes, on one line, whatever the name holds.
fn quoted(name: &str) -> String {
    let shown: String = name.chars().map(|one| if one.is_control() { '?' } else { one }).collect();
    format!("\"{}\"", shown.replace('"', "\"\""))
}
