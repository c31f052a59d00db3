//! Real servers for the tests: throwaway PostgreSQL clusters and an OpenBao, stopped and removed however a test ends.
#![allow(dead_code, unused_imports)] // not every test needs every helper

mod cluster;
mod docs;
mod guard;
mod openbao;
mod pgbouncer;
mod port;
mod proxy;
mod sessions;
mod shared;
mod sql;

use std::ffi::OsStr;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

pub use cluster::{Cluster, lacks, major_version, pg_config};
pub use docs::{document, own_keyring, rotated_docs, with_keyring};
pub use guard::Guard;
pub use openbao::OpenBao;
pub use pgbouncer::PgBouncer;
pub use port::free_port;
pub use proxy::{Fault, Proxy};
pub use sessions::{beside, start, start_waiting, wait_until_active};
pub use shared::{fresh_database, shared};
pub use sql::{AsBytes, AsText, Sql};

/// `program`, to be run by the user that runs the servers: PostgreSQL refuses root, who becomes "postgres" for it.
pub fn as_server(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(if is_root() { OsStr::new("setpriv") } else { program.as_ref() });
    if is_root() {
        command
            .args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--inh-caps=-all", "--"])
            .arg(program);
        command.current_dir("/");
    }
    // The developer's own server is none of ours.
    for setting in ["PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGDATA", "PGOPTIONS", "PGSERVICE"] {
        command.env_remove(setting);
    }
    command
}

/// Runs `command` and returns what it printed; panics with its error output if it fails.
pub fn run(command: &mut Command) -> String {
    let output = output(command);
    assert!(output.status.success(), "{command:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("output in UTF-8")
}

/// Runs `command` and returns what came of it, success or not.
pub fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Waits until `ready` is true; panics after `limit`, naming what was waited for.
pub fn wait_for(what: &str, limit: Duration, mut ready: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !ready() {
        assert!(Instant::now() < end, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}
