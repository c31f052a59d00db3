//! Every error of the extension with its SQLSTATE and hint; raised in one place.
//!
//! No message carries a key, a value, a token or what a KMS answered.

use std::borrow::Cow;

use pgrx::PgSqlErrorCode as Code;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport, ErrorReportWithLevel};
use pgrx::{PgLogLevel, spi};

use crate::core::envelope::{OpenError, RenewError, SealError};
use crate::core::header::FormatError;
use crate::core::ivf::page::{PageError, Tid};
use crate::core::jsonb::JsonbError;
use crate::core::kdf::CommitmentMismatch;
use crate::core::memory::OutOfMemory;
use crate::core::policy::PolicyError;
use crate::core::rng::RandomError;
use crate::core::text_form::TextFormError;
use crate::core::token::TokenError;
use crate::core::vector::elements::VectorError;
use crate::keys::state::{UnknownState, VersionsUsedUp};
use crate::kms::{Class, KmsError};

/// Leaves backtraces to Rust's own panics: errors of PostgreSQL and of ours pass through panics as well. After pgrx has
/// set its hook, hence from `_PG_init`.
pub fn quiet_backtraces() {
    let of_pgrx = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let raised = panic.payload();
        if !raised.is::<CaughtError>() && !raised.is::<ErrorReportWithLevel>() {
            of_pgrx(panic);
        }
    }));
}

/// Why a table cannot be rewritten in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The role does not own the table.
    Owner,
    /// Not an ordinary table of a heap, or a temporary one, or the column is none of variable length.
    Kind,
}

/// What can go wrong in an SQL function.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    /// Text that is no sealed value.
    #[error("malformed ciphertext: {0}")]
    SealedText(FormatError),
    /// Characters that are not base64.
    #[error("malformed ciphertext: {0}")]
    TextForm(TextFormError),
    /// Binary input or stored bytes that are no sealed value.
    #[error("malformed ciphertext: {0}")]
    Sealed(#[from] FormatError),
    /// A sealed value of another type, in binary form.
    #[error("the sealed value is not of type {0}")]
    OtherContent(&'static str),
    /// The same as text.
    #[error("the sealed value is not of type {0}")]
    OtherContentText(&'static str),
    /// JSON text that PostgreSQL refuses; the text stays out of the message.
    #[error("invalid input syntax for a JSON document")]
    Json,
    /// Text that is not UTF-8.
    #[error("the text is not valid UTF-8")]
    Encoding,
    /// Text that a database of another encoding has sealed.
    #[error("the decrypted value is not text in this database's encoding")]
    OtherEncoding,
    /// Case is folded as Unicode says.
    #[error("filters that do not look at case need a database with encoding UTF8")]
    CaseNeedsUtf8,
    /// The tag does not fit.
    #[error("authentication of an encrypted value failed")]
    Authentication,
    /// Bound to a context.
    #[error("the context is not the one that the value was encrypted with")]
    Context,
    /// The keyring that a setting, type or function names.
    #[error("keyring \"{0}\" does not exist")]
    UnknownKeyring(String),
    /// The keyring that a value or type modifier names.
    #[error("keyring {0} does not exist")]
    UnknownKeyringId(i32),
    /// A version that the catalog does not have.
    #[error("keyring \"{0}\" has no {1} key version {2}")]
    UnknownKey(String, &'static str, u16),
    /// Neither a type modifier nor a setting nor a default says which keyring.
    #[error("no keyring is chosen for this value")]
    NoKeyring,
    /// A value of one keyring for a column of another.
    #[error("the value belongs to keyring {value}, the column to keyring {column}")]
    WrongKeyring {
        /// Keyring of the value, quoted name or number.
        value: String,
        /// Keyring of the column.
        column: String,
    },
    /// A version that may no longer be used.
    #[error("{1} key version {2} of keyring \"{0}\" is {3}")]
    KeyState(String, &'static str, u16, &'static str),
    /// The role, named last, lacks a privilege.
    #[error("permission denied for keyring \"{0}\": {1} privilege needed")]
    Privilege(String, &'static str, String),
    /// The role may search, but not decrypt, and asks about a path that is not searchable.
    #[error(
        "permission denied for keyring \"{0}\": without the decrypt privilege only searchable paths may be asked about"
    )]
    Undeclared(String),
    /// A statement that was prepared with `pgseal.reveal` on runs with it off, or for another than the client.
    #[error("this statement was prepared with pgseal.reveal on")]
    NotRevealed,
    /// With `pgseal.reveal` on, ciphertext would reach the client inside text, a row or an array.
    #[error("this would return ciphertext, and pgseal.reveal is on")]
    Unrevealed,
    /// A decrypted text that does not read as the type it is cast to; the text stays out of the message.
    #[error("the decrypted text is not a valid {0}")]
    Unreadable(String, Code),
    /// Bounds given as text, of which none says what is compared.
    #[error("both bounds are open, and neither says whether numbers or times are compared")]
    OpenBounds,
    /// Bounds given as text that are neither two numbers nor two times.
    #[error("the bounds are neither numbers nor dates or times")]
    UnreadableBounds,
    /// An endpoint that no superuser has named yet.
    #[error("only a superuser may name a new KMS endpoint")]
    NewEndpoint,
    /// Sealed input while it is switched off.
    #[error("sealed values are not accepted here")]
    SealedRefused,
    /// A sealed value's text form as a parameter of type text.
    #[error("the text is an encrypted value already")]
    SealedAsText,
    /// The KMS.
    #[error("KMS of keyring \"{0}\": {1}")]
    Kms(String, KmsError),
    /// The key is not the one it should be.
    #[error("keyring \"{0}\": {1}")]
    Commitment(String, CommitmentMismatch),
    /// The system gave no memory.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
    /// A document that no token can be made for.
    #[error("{0}")]
    TooDeep(JsonbError),
    /// Too many tokens, too large, versions used up.
    #[error("{0}")]
    Limit(String),
    /// A searchable path that does not follow the grammar.
    #[error("{0}")]
    Path(PolicyError),
    /// An argument of a management function.
    #[error("{0}")]
    Argument(String),
    /// A column that the role may not select, or not all rows of.
    #[error("permission denied for column \"{0}\": all of its rows are to be read")]
    Unselectable(String),
    /// A table of a role that the current one may not SET ROLE to.
    #[error("must be owner of the table, or may SET ROLE to its owner")]
    NotOwner,
    /// A table that somebody else maintains.
    #[error("the table of index \"{0}\" is being vacuumed, or has its indexes made, by another session")]
    Maintained(String),
    /// Something exists already.
    #[error("keyring \"{0}\" already exists")]
    KeyringExists(String),
    /// A CALL that commits, inside BEGIN.
    #[error("{0} cannot run inside a transaction block")]
    TransactionBlock(String),
    /// A table whose values are not rewritten where they are.
    #[error("{}", match .0 {
        Refused::Owner => "only its owner may rotate a table in place",
        Refused::Kind => "rotation in place is for ordinary tables that are not temporary",
    })]
    InPlace(Refused),
    /// Something else is made of the bytes.
    #[error("cannot rotate in place: {0}")]
    InPlaceProblem(String),
    /// What ROLLBACK takes back would leave values that nothing opens.
    #[error("data key version {1} of keyring \"{0}\" is not committed yet")]
    UncommittedKey(String, u16),
    /// Whoever reads the rows with such a snapshot, for one a dump, does not see the key.
    #[error("sessions {2} may have a snapshot from before data key version {1} of keyring \"{0}\"")]
    OlderSnapshots(String, u16, String),
    /// Needs what only a preloaded library has.
    #[error("pgseal is not preloaded, or pgseal.shared_keys is 0")]
    NotPreloaded,
    /// Where a transaction's token ends, the session's could not come back.
    #[error("this session has a KMS token of its own")]
    TokenOfSession,
    /// PREPARE TRANSACTION after keys were changed or flushed: whoever commits it could not tell the other sessions at once.
    #[error("cannot PREPARE a transaction that has changed or flushed keys")]
    PreparedKeys,
    /// Keys made on a worker of Citus.
    #[error("this server is a worker of Citus, whose keyrings are made and changed on the coordinator")]
    Worker,
    /// The catalog's own rows are damaged.
    #[error("the catalog of pgseal is damaged: {0}")]
    Catalog(String),
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// An operator that ciphertext cannot answer.
    #[error("this operator does not work on encrypted values")]
    Unsupported,
    /// An index that would keep an order or hashes of plaintexts.
    #[error("an index of this kind would tell what encrypted values are")]
    NoIndex,
    /// pgvector's indexes keep what they index.
    #[error("an index of this kind would keep embeddings in plaintext")]
    VectorIndex,
    /// A unique index of encrypted values.
    #[error("a unique index would tell which encrypted values are equal")]
    UniqueIndex,
    /// A parallel worker sorts or groups: it has neither the session's credentials nor its log.
    #[error("a parallel worker cannot sort or group encrypted values")]
    InWorker,
    /// The same of vectors.
    #[error("this operator does not work on encrypted vectors")]
    UnsupportedVector,
    /// An SQL definition that passes fewer arguments than the library takes.
    #[error("the function was declared with too few arguments")]
    Arity,
    /// An SQL definition that passes NULL where the library takes none.
    #[error("the function was declared without STRICT, and called with NULL")]
    Null,
    /// A cast or assignment to a type that has no cast of ours: PostgreSQL would read the ciphertext as one.
    #[error("an encrypted value is not cast to {0} without being decrypted")]
    IoCast(String),
    /// PostgreSQL has dropped the COLLATE of a literal or parameter.
    #[error("COLLATE on a literal or parameter without type has no effect beside an encrypted value")]
    Collate,
    /// See `choice::require_seen`.
    #[error("pgseal was loaded after this statement was planned")]
    PlannedBefore,
    /// The same.
    #[error("pgseal.keyring chooses among values here only once the extension is updated")]
    NotUpdated,
    /// A scan of a sealed index without ORDER BY.
    #[error("a sealed_ivf index is scanned in the order of a distance only")]
    UnorderedScan,
    /// A scan that does not look at the table as of one moment.
    #[error("a sealed_ivf index is scanned with an MVCC snapshot only")]
    SnapshotOfScan,
    /// A sealed index on something else than a column.
    #[error("sealed_ivf does not index expressions")]
    IndexedExpression,
    /// A sealed index on a column that takes values of every keyring.
    #[error("column is not bound to a keyring")]
    UnboundColumn,
    /// In pgvector's words.
    #[error("column does not have dimensions")]
    ColumnWithoutDimensions,
    /// A page of an index that cannot be read.
    #[error("block {block} of index \"{index}\": {error}")]
    IndexPage {
        /// Name of the index.
        index: String,
        /// Number of the page.
        block: u32,
        /// What is wrong.
        error: PageError,
    },
    /// An error about one row that an index points to.
    #[error("{error} (row ({},{}) of the table of index \"{index}\")", tid.block, tid.offset)]
    IndexedRow {
        /// Name of the index.
        index: String,
        /// Where the row is.
        tid: Tid,
        /// What is wrong.
        error: Box<PgError>,
    },
    /// A filter typed as text.
    #[error("an encrypted_filter cannot be written as text")]
    FilterText,
    /// What is no vector, or not one for this column.
    #[error("{0}")]
    Vector(VectorError),
    /// An array that is no vector, in pgvector's words.
    #[error("array must be 1-D")]
    ArrayDimensions,
    /// The same.
    #[error("array must not contain nulls")]
    ArrayNulls,
    /// Two vectors that have no distance.
    #[error("different vector dimensions {0} and {1}")]
    DifferentDimensions(usize, usize),
    /// Two keyrings, quoted names, that a column of vectors cannot tell apart; one of them was imported.
    #[error("keyrings {0} and {1} are the same to the type of a vector column")]
    SharedTag(String, String),
}

/// Why a keyring can be asked for that is not the column's.
const UNTYPED: &str = " A parameter without a type is sealed under the session's keyring first: \
     SET pgseal.keyring to the column's, or cast it to jsonb or text.";

impl PgError {
    /// Raises the error in PostgreSQL. Our destructors run: pgrx unwinds before the C longjmp.
    pub fn raise(self) -> ! {
        let mut report = ErrorReport::new(self.code(), self.to_string(), "pgseal");
        if let Some(hint) = self.hint() {
            report = report.set_hint(hint.into_owned());
        }
        report.report(PgLogLevel::ERROR);
        unreachable!("an ERROR report does not return")
    }

    /// It says something about one value, not about keys, privileges or the server.
    pub fn is_of_value(&self) -> bool {
        matches!(
            self,
            PgError::Sealed(_)
                | PgError::OtherContent(_)
                | PgError::Authentication
                | PgError::UnknownKeyringId(_)
                | PgError::UnknownKey(..)
                | PgError::KeyState(..)
                | PgError::Limit(_)
                | PgError::TooDeep(_)
                | PgError::Catalog(_)
        )
    }

    /// The same, with the row where it says something about one.
    pub fn of_row(self, index: String, tid: Tid) -> Self {
        if self.is_of_value() { PgError::IndexedRow { index, tid, error: Box::new(self) } } else { self }
    }

    /// The keyring at hand does not serve, or not now: what needs none may go on without it.
    pub fn is_for_want_of_a_key(&self) -> bool {
        match self {
            PgError::NoKeyring | PgError::Privilege(..) => true,
            PgError::Kms(_, error) => !matches!(error.class(), Class::Cancelled),
            _ => false,
        }
    }

    fn code(&self) -> Code {
        match self {
            PgError::SealedText(_)
            | PgError::TextForm(_)
            | PgError::OtherContentText(_)
            | PgError::SealedAsText
            | PgError::Json
            | PgError::FilterText => Code::ERRCODE_INVALID_TEXT_REPRESENTATION,
            PgError::Sealed(_) | PgError::OtherContent(_) => Code::ERRCODE_INVALID_BINARY_REPRESENTATION,
            PgError::Unreadable(_, code) => *code,
            PgError::Vector(error) => code_of_vector(error),
            PgError::ArrayDimensions | PgError::DifferentDimensions(..) => Code::ERRCODE_DATA_EXCEPTION,
            PgError::SharedTag(..) => Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            PgError::Encoding | PgError::OtherEncoding => Code::ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
            PgError::CaseNeedsUtf8 => Code::ERRCODE_FEATURE_NOT_SUPPORTED,
            PgError::Authentication | PgError::Context | PgError::Commitment(..) => {
                Code::ERRCODE_DATA_EXCEPTION
            }
            PgError::UnknownKeyring(_)
            | PgError::UnknownKeyringId(_)
            | PgError::UnknownKey(..)
            | PgError::NoKeyring => Code::ERRCODE_UNDEFINED_OBJECT,
            PgError::WrongKeyring { .. }
            | PgError::Argument(_)
            | PgError::Path(_)
            | PgError::OpenBounds
            | PgError::UnreadableBounds => Code::ERRCODE_INVALID_PARAMETER_VALUE,
            PgError::KeyState(..)
            | PgError::NotRevealed
            | PgError::NotPreloaded
            | PgError::TokenOfSession
            | PgError::Worker
            | PgError::UncommittedKey(..) => Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            PgError::Privilege(..)
            | PgError::Undeclared(_)
            | PgError::NewEndpoint
            | PgError::SealedRefused => Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
            PgError::Kms(_, error) => match error.class() {
                Class::Denied => Code::ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
                Class::Unavailable => Code::ERRCODE_IO_ERROR,
                Class::Setting => Code::ERRCODE_INVALID_PARAMETER_VALUE,
                Class::Cancelled => Code::ERRCODE_QUERY_CANCELED,
            },
            PgError::OutOfMemory(_) => Code::ERRCODE_OUT_OF_MEMORY,
            PgError::Limit(_) | PgError::TooDeep(_) => Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            PgError::KeyringExists(_) => Code::ERRCODE_DUPLICATE_OBJECT,
            PgError::PreparedKeys | PgError::Unrevealed => Code::ERRCODE_FEATURE_NOT_SUPPORTED,
            PgError::TransactionBlock(_) => Code::ERRCODE_ACTIVE_SQL_TRANSACTION,
            PgError::InPlace(Refused::Owner) | PgError::NotOwner | PgError::Unselectable(_) => {
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE
            }
            PgError::InPlace(_) | PgError::InPlaceProblem(_) => Code::ERRCODE_FEATURE_NOT_SUPPORTED,
            PgError::OlderSnapshots(..) => Code::ERRCODE_OBJECT_IN_USE,
            PgError::Maintained(_) => Code::ERRCODE_LOCK_NOT_AVAILABLE,
            PgError::Catalog(_) => Code::ERRCODE_DATA_CORRUPTED,
            PgError::Unsupported | PgError::UnsupportedVector => Code::ERRCODE_UNDEFINED_FUNCTION,
            PgError::NoIndex
            | PgError::VectorIndex
            | PgError::UniqueIndex
            | PgError::UnorderedScan
            | PgError::SnapshotOfScan
            | PgError::IndexedExpression => Code::ERRCODE_FEATURE_NOT_SUPPORTED,
            PgError::UnboundColumn | PgError::ColumnWithoutDimensions => {
                Code::ERRCODE_INVALID_PARAMETER_VALUE
            }
            PgError::IndexPage { error: PageError::Authentication, .. } => Code::ERRCODE_DATA_EXCEPTION,
            PgError::IndexPage { error: PageError::Random, .. } => Code::ERRCODE_SYSTEM_ERROR,
            PgError::IndexPage { .. } => Code::ERRCODE_INDEX_CORRUPTED,
            PgError::IndexedRow { error, .. } => error.code(),
            PgError::IoCast(_) => Code::ERRCODE_CANNOT_COERCE,
            PgError::Collate => Code::ERRCODE_COLLATION_MISMATCH,
            PgError::PlannedBefore | PgError::NotUpdated | PgError::InWorker => {
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
            }
            PgError::Arity => Code::ERRCODE_INVALID_FUNCTION_DEFINITION,
            PgError::Null | PgError::ArrayNulls => Code::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            PgError::Random(_) => Code::ERRCODE_SYSTEM_ERROR,
        }
    }

    /// What to do next.
    pub fn hint(&self) -> Option<Cow<'static, str>> {
        let quoted = |name: &str| format!("'{}'", name.replace('\'', "''"));
        Some(match self {
            PgError::UnknownKeyring(name) => Cow::Owned(format!(
                "SELECT pgseal.create_keyring({}) makes it; SELECT name FROM pgseal.keyrings lists the keyrings of this database.",
                quoted(name)
            )),
            PgError::Privilege(name, privilege, role) => Cow::Owned(format!(
                "SELECT pgseal.grant_keyring({}, {}, ARRAY['{privilege}']) grants it.{}",
                quoted(name),
                quoted(role),
                if *privilege == "encrypt" { UNTYPED } else { "" }
            )),
            PgError::IndexedRow { error, .. } => return error.hint(),
            _ => return self.fixed_hint().map(Cow::Borrowed),
        })
    }

    fn fixed_hint(&self) -> Option<&'static str> {
        Some(match self {
            PgError::SealedText(_) | PgError::TextForm(_) | PgError::Sealed(_) => {
                "Text that starts with \"pgseal:\" is read as an encrypted value. Was it cut or changed?"
            }
            PgError::Encoding | PgError::CaseNeedsUtf8 => {
                "Move to a UTF8 database, by decrypted values: createdb -E UTF8 -T template0 name"
            }
            PgError::OtherEncoding => {
                "It was encrypted in a database of another encoding: decrypt it there, and encrypt it anew here."
            }
            PgError::Json => {
                "The document is not shown because it may be confidential. Cast it to jsonb to see what is wrong."
            }
            PgError::Authentication => {
                "The value was altered, or comes from another database. SELECT * FROM pgseal.verify(table, column) tells which rows; \
                 restore them from a backup."
            }
            PgError::Worker => {
                "Call it there, then bring the keyring here: SELECT pgseal.import_keyring(document), with what SELECT pgseal.export_keyring(name) gives there."
            }
            PgError::TooDeep(_) => {
                "Only a keyring without searchable paths takes such a document. A stored one is named, with its ctid, by \
                 CALL pgseal.reencrypt(table, column): split it, or move it to another keyring."
            }
            PgError::Path(_) => {
                "Paths are $.name, $.author.name, $.\"odd name\", $.* and $.**; for elements of an array the array's own, $.tags."
            }
            PgError::KeyringExists(_) => {
                "SELECT * FROM pgseal.keyrings shows it; pgseal.set_searchable(keyring, paths) changes its searchable paths."
            }
            PgError::Context => {
                "Call pgseal.decrypt(value, context) with that context; a value encrypted without one takes none."
            }
            PgError::Maintained(_) => {
                "Call it again when that has ended: SELECT * FROM pg_stat_progress_vacuum; a longer lock_timeout waits longer."
            }
            PgError::UnknownKeyringId(_) => {
                "The keyring did not come with the data: SELECT pgseal.import_keyring(document), with what \
                 SELECT pgseal.export_keyring(name) gives where it is; or restore pgseal's tables from the same dump."
            }
            PgError::SealedAsText => "Write $1::encrypted_text for a parameter that brings encrypted values.",
            PgError::NoKeyring => {
                "It is sealed before its column is known: SET pgseal.keyring, cast it to jsonb or text, use \
                 pgseal.encrypt(value, 'keyring'), or SELECT pgseal.set_default_keyring('keyring')."
            }
            PgError::WrongKeyring { .. } => {
                "Encrypt it anew: pgseal.encrypt(pgseal.decrypt(value), 'keyring of the column')."
            }
            PgError::KeyState(..) => {
                "A literal or DEFAULT may have been encrypted long ago: prepare the statement again or set the DEFAULT again."
            }
            PgError::NotRevealed => {
                "SET pgseal.reveal = on to run it, or prepare it again. CREATE TABLE AS and functions cannot run it at all."
            }
            PgError::Unrevealed => {
                "Write pgseal.decrypt(value) where the value is put into text, a row or an array, in the view or function too; or \
                 RESET pgseal.reveal. A statement that loads the library, because nothing has preloaded it, works when it is sent again."
            }
            PgError::Undeclared(_) => {
                "pgseal.keyrings shows the searchable paths; SELECT pgseal.grant_keyring('keyring', 'role', ARRAY['decrypt']) \
                 opens the others. Parts of documents (-> and #>) can be looked into with decrypt only."
            }
            PgError::NewEndpoint => {
                "The server's credentials go there. Leave kms_endpoint out, or name the server's own or one that a keyring has."
            }
            PgError::SealedRefused => "SET pgseal.accept_sealed = on allows it, as a restore needs it.",
            PgError::Kms(_, KmsError::Local(_) | KmsError::File { .. }) => {
                "The operating system's user of the server, mostly postgres, must own or be able to read these files: sudo install -d \
                 -o postgres -m 700 directory. pgseal makes a key directory itself where that user may write to the one above it."
            }
            PgError::Kms(_, KmsError::Endpoint(_)) => {
                "pgseal.kms_endpoint belongs into postgresql.conf, then SELECT pg_reload_conf() and a new session. To try it out: \
                 file:///var/lib/postgresql/pgseal-keys, which the server's user makes. Others: vault+https://vault.example:8200/transit, \
                 aws-kms://eu-central-1, gcp-kms://projects/P/locations/L/keyRings/R, azure-kv://NAME.vault.azure.net."
            }
            PgError::Kms(_, error) if error.is_foreign() => {
                "Was pgseal.kms_endpoint changed? Keyrings without an endpoint of their own follow it: set it back, and move to another KMS \
                 by a new keyring. SELECT name, kms_endpoint, kms_key FROM pgseal.keyrings; SHOW pgseal.kms_endpoint."
            }
            PgError::Kms(_, error) => match error.class() {
                Class::Denied => "Access must be given back at the KMS; stored values are not touched.",
                Class::Unavailable => {
                    "Nothing was changed. Try again when the KMS answers; pgseal.kms_timeout bounds the wait."
                }
                Class::Setting => {
                    "Settings belong into postgresql.conf, then SELECT pg_reload_conf() and a new session; for Vault \
                     pgseal.kms_token_file = '/etc/pgseal/token', which the server's user can read. kms_key of create_keyring is the \
                     key's name as that KMS writes it."
                }
                Class::Cancelled => return None,
            },
            PgError::Commitment(..) => {
                "The wrapped key in the catalog or at the KMS was replaced. Restore pgseal's tables."
            }
            PgError::TransactionBlock(_) => {
                "It commits after every batch: run it on its own, with autocommit on."
            }
            PgError::InPlace(_) | PgError::InPlaceProblem(_) => {
                "rotation => 'update' writes new row versions."
            }
            PgError::UncommittedKey(..) => "COMMIT, then CALL pgseal.reencrypt(table, column).",
            PgError::OlderSnapshots(..) => {
                "CALL pgseal.reencrypt(table, column, rotation => 'in_place') waits for them. A transaction that is older than the \
                 key, prepared or in another database, makes all snapshots look older: see pg_prepared_xacts and pg_stat_activity."
            }
            PgError::TokenOfSession => "SELECT pgseal.set_kms_token(NULL) first.",
            PgError::NotPreloaded => {
                "Add pgseal to shared_preload_libraries in postgresql.conf and restart the server."
            }
            PgError::Unsupported => {
                "Decrypt first: pgseal.decrypt(value). Filters are value @> '{\"key\": \"value\"}' and value ->> 'key' = 'value'."
            }
            PgError::NoIndex => {
                "CREATE INDEX ON table USING gin (column) makes @>, ->> = and = fast. What is to be unique or a key must be \
                 another column: a number, or a keyed hash that the application makes."
            }
            PgError::VectorIndex => {
                "CREATE INDEX ON table USING sealed_ivf (column encrypted_vector_cosine_ops), or with encrypted_vector_l2_ops or \
                 encrypted_vector_ip_ops. The column says how many dimensions it has: encrypted_vector(keyring, 384)."
            }
            PgError::UniqueIndex => {
                "Make the table anew after SELECT pgseal.protect(pattern, keyring, plain => ARRAY['column']), which leaves the column \
                 plain, or have another column unique."
            }
            PgError::InWorker => {
                "Run it again, or SET max_parallel_workers_per_gather = 0. session_preload_libraries = 'pgseal' plans it without."
            }
            PgError::UnsupportedVector => {
                "Order by a distance, value <=> '[1,2,3]', or decrypt first: pgseal.decrypt(value)."
            }
            PgError::OpenBounds | PgError::UnreadableBounds => {
                "Cast a bound: $1::numeric or $1::timestamptz. NULL is an open end."
            }
            PgError::IoCast(_) => {
                "Decrypt it first: pgseal.decrypt(value)::type; or SET pgseal.reveal = on, where it goes to the client. \
                 A variable for encrypted values is declared encrypted_jsonb, encrypted_text or encrypted_vector. The ciphertext as text is pgseal.sealed_text(value)."
            }
            PgError::Collate => "Say that it is a text: 'value'::text COLLATE collation.",
            PgError::NotUpdated => "ALTER EXTENSION pgseal UPDATE; or RESET pgseal.keyring.",
            PgError::PlannedBefore => {
                "Run it again. session_preload_libraries = 'pgseal' loads it with the session."
            }
            PgError::UnboundColumn | PgError::ColumnWithoutDimensions => {
                "ALTER TABLE table ALTER COLUMN column TYPE encrypted_vector(keyring, dimensions)"
            }
            PgError::IndexPage { .. } => "REINDEX INDEX builds it anew from the table.",
            PgError::FilterText => "Make one with pgseal.filter('{\"key\": \"value\"}').",
            PgError::Vector(VectorError::Syntax(detail)) => return *detail,
            PgError::SharedTag(..) => {
                "Values are read as before. For new ones name the keyring: pgseal.encrypt(value, 'keyring') into a column of type \
                 encrypted_vector without modifier; or give one of the two up: pgseal.drop_keyring."
            }
            PgError::OtherContent(_) | PgError::OtherContentText(_) => {
                "Use a column of the type that the value was encrypted as."
            }
            _ => return None,
        })
    }
}

/// As pgvector has them.
fn code_of_vector(error: &VectorError) -> Code {
    match error {
        VectorError::Syntax(_) => Code::ERRCODE_INVALID_TEXT_REPRESENTATION,
        VectorError::OutOfRange => Code::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
        VectorError::TooManyDimensions => Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        VectorError::Binary => Code::ERRCODE_INVALID_BINARY_REPRESENTATION,
        VectorError::OutOfMemory(_) => Code::ERRCODE_OUT_OF_MEMORY,
        VectorError::NotANumber
        | VectorError::Infinite
        | VectorError::NoDimension
        | VectorError::OtherDimensions(..)
        | VectorError::Unused => Code::ERRCODE_DATA_EXCEPTION,
    }
}

impl From<VectorError> for PgError {
    fn from(error: VectorError) -> Self {
        match error {
            VectorError::OutOfMemory(error) => error.into(),
            error => PgError::Vector(error),
        }
    }
}

impl From<TextFormError> for PgError {
    fn from(error: TextFormError) -> Self {
        match error {
            TextFormError::Base64 => PgError::TextForm(error),
            TextFormError::OutOfMemory(error) => error.into(),
        }
    }
}

impl From<OpenError> for PgError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Authentication => PgError::Authentication,
            OpenError::Context => PgError::Context,
            OpenError::OutOfMemory(error) => error.into(),
        }
    }
}

impl From<RenewError> for PgError {
    fn from(error: RenewError) -> Self {
        match error {
            RenewError::Open(error) => error.into(),
            RenewError::Seal(error) => error.into(),
        }
    }
}

impl From<SealError> for PgError {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Random(error) => error.into(),
            SealError::OutOfMemory(error) => error.into(),
            SealError::TooLarge => PgError::Limit(error.to_string()),
        }
    }
}

impl From<TokenError> for PgError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Document(error) => error.into(),
            TokenError::Random(error) => error.into(),
            TokenError::OutOfMemory(error) => error.into(),
            TokenError::TooMany => PgError::Limit(error.to_string()),
        }
    }
}

impl From<JsonbError> for PgError {
    fn from(error: JsonbError) -> Self {
        match error {
            JsonbError::TooDeep => PgError::TooDeep(error),
            JsonbError::Malformed => PgError::Catalog(error.to_string()),
            JsonbError::OutOfMemory(error) => error.into(),
        }
    }
}

impl From<VersionsUsedUp> for PgError {
    fn from(error: VersionsUsedUp) -> Self {
        PgError::Limit(error.to_string())
    }
}

impl From<UnknownState> for PgError {
    fn from(error: UnknownState) -> Self {
        PgError::Catalog(error.to_string())
    }
}

impl From<PolicyError> for PgError {
    fn from(error: PolicyError) -> Self {
        match error {
            PolicyError::Stored(_) => PgError::Catalog(error.to_string()),
            PolicyError::Path(..) => PgError::Path(error),
            _ => PgError::Argument(error.to_string()),
        }
    }
}

impl From<spi::Error> for PgError {
    fn from(error: spi::Error) -> Self {
        PgError::Catalog(error.to_string())
    }
}
