use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use postgres::Client;

use super::Cluster;

/// One cluster for all tests that change nothing outside their own database. Its guard ends it with this process.
pub fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| {
        let cluster = Cluster::start(&[]);
        cluster.connect("postgres").batch_execute("CREATE DATABASE with_pgseal").expect("a database");
        cluster
            .connect("with_pgseal")
            .batch_execute("CREATE EXTENSION pgseal CASCADE")
            .expect("the extension pgseal");
        cluster
    })
}

/// A connection to a new database of the shared cluster, with pgseal in it.
pub fn fresh_database() -> Client {
    static NUMBER: AtomicUsize = AtomicUsize::new(1);
    let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let create = format!("CREATE DATABASE {name} TEMPLATE with_pgseal");
    let cluster = shared();
    cluster.connect("postgres").batch_execute(&create).expect("a database");
    cluster.connect(&name)
}
