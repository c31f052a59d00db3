//! The PostgreSQL side: types, casts, operators, the planner, GIN and the catalog.

pub mod catalog;
pub mod counters;
pub mod error;
pub mod exports;
pub mod grantees;
pub mod ivf;
pub mod keyrings;
pub mod protect;
pub mod raw;
pub mod released;
pub mod rotation;
pub mod search;
pub mod session;
pub mod settings;
pub mod values;

use search::{decrypted, lists};
use session::{decrypt_log, shared_keys};
use values::{choice, literal};

pgrx::pg_module_magic!();

/// Keys and tokens pass through libraries' buffers: none leaves a copy in freed memory.
#[global_allocator]
static MEMORY: zeroizing_alloc::ZeroAlloc<raw::memory::WithRoom> =
    zeroizing_alloc::ZeroAlloc(raw::memory::WithRoom);

pgrx::extension_sql_file!("../../sql/catalog.sql", name = "catalog", bootstrap);
pgrx::extension_sql_file!("../../sql/types.sql", name = "types", requires = ["catalog"]);
pgrx::extension_sql_file!("../../sql/values.sql", name = "values", requires = ["types"]);
pgrx::extension_sql_file!("../../sql/search.sql", name = "search", requires = ["values"]);
pgrx::extension_sql_file!("../../sql/operators.sql", name = "operators", requires = ["search"]);
pgrx::extension_sql_file!("../../sql/lists.sql", name = "lists", requires = ["operators"]);
pgrx::extension_sql_file!("../../sql/between.sql", name = "between", requires = ["lists"]);
pgrx::extension_sql_file!("../../sql/decrypt_casts.sql", name = "decrypt_casts", requires = ["between"]);
pgrx::extension_sql_file!("../../sql/vector.sql", name = "vector", requires = ["decrypt_casts"]);
pgrx::extension_sql_file!("../../sql/reveal.sql", name = "reveal", requires = ["vector"]);
pgrx::extension_sql_file!("../../sql/grouping.sql", name = "grouping", requires = ["reveal"]);
pgrx::extension_sql_file!("../../sql/no_indexes.sql", name = "no_indexes", requires = ["grouping"]);
pgrx::extension_sql_file!("../../sql/keyrings.sql", name = "keyrings", requires = ["no_indexes"]);
pgrx::extension_sql_file!("../../sql/reencrypt_progress.sql", name = "progress", requires = ["keyrings"]);
pgrx::extension_sql_file!("../../sql/places.sql", name = "places", requires = ["progress"]);
pgrx::extension_sql_file!("../../sql/in_place.sql", name = "in_place", requires = ["places"]);
pgrx::extension_sql_file!("../../sql/reencrypt.sql", name = "reencrypt", requires = ["in_place"]);
pgrx::extension_sql_file!("../../sql/retire.sql", name = "retire", requires = ["reencrypt"]);
pgrx::extension_sql_file!("../../sql/monitor.sql", name = "monitor", requires = ["retire"]);
pgrx::extension_sql_file!("../../sql/migration.sql", name = "migration", requires = ["monitor"]);
pgrx::extension_sql_file!("../../sql/encrypt_table.sql", name = "encrypt_table", requires = ["migration"]);
pgrx::extension_sql_file!("../../sql/backup.sql", name = "backup", requires = ["encrypt_table"]);
pgrx::extension_sql_file!("../../sql/verify.sql", name = "verify", requires = ["backup"]);
pgrx::extension_sql_file!("../../sql/audit.sql", name = "audit", requires = ["verify"]);
pgrx::extension_sql_file!("../../sql/evidence.sql", name = "evidence", requires = ["audit"]);
pgrx::extension_sql_file!("../../sql/ivf.sql", name = "ivf", requires = ["evidence"]);
pgrx::extension_sql_file!("../../sql/stored_casts.sql", name = "stored", requires = ["ivf"]);
pgrx::extension_sql_file!("../../sql/protect.sql", name = "protect", requires = ["stored"]);
pgrx::extension_sql_file!("../../sql/privileges.sql", name = "privileges", requires = ["protect"], finalize);

/// What raw calls above itself is handed to it here: it names nothing but errors and counts.
const WATCHER: raw::watch::Watcher = raw::watch::Watcher {
    relation_changed: session::relation_changed,
    role_changed: session::conclusions_changed,
    setting_changed: session::setting_changed,
    token_taken: session::token_taken,
    before_commit: session::before_commit,
    before_prepare: session::before_prepare,
    transaction_ended: session::transaction_ended,
};

const CHOICES: raw::choice::Choices = raw::choice::Choices {
    are_there: || session::tables().is_ok(),
    chosen: choice::in_chosen,
    each: choice::in_each,
    answers: choice::in_answers,
};

const LISTS: raw::lists::Rewrites =
    raw::lists::Rewrites { list: lists::rewritten, decrypted: decrypted::compared };

const LITERALS: raw::untyped::Literals = raw::untyped::Literals {
    plain: literal::plain,
    bound: literal::bound,
    refuse_inside: literal::refuse_inside,
};

/// Called by PostgreSQL when the library is loaded, in the postmaster where it is preloaded: defines
/// settings and nothing that could hold a key.
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    error::quiet_backtraces();
    raw::watch::watch(WATCHER);
    raw::definition::loaded();
    raw::untyped::install(LITERALS);
    raw::reveal::install(choice::is_sealed);
    raw::hnsw_cost::install();
    raw::unbound::install();
    raw::index_am::install::<ivf::handler::SealedIvf>();
    raw::choice::install(CHOICES);
    raw::lists::install(LISTS);
    raw::statement::install(decrypt_log::statement_ended);
    raw::copy::install();
    settings::define();
    if raw::xact::is_preloading() && settings::shared_keys() > 0 {
        raw::shmem::request(settings::shared_keys());
        raw::worker::register(shared_keys::expire);
    }
}
