use std::path::Path;
use std::time::Duration;

use postgres::{Client, Config, NoTls};

use super::cluster::Cluster;
use super::guard::Guard;
use super::port::free_port;
use super::{as_server, wait_for};

/// A real PgBouncer in transaction mode with one connection to the server, which all its clients share, from the program
/// `PGSEAL_PGBOUNCER`. Dropping it stops it.
pub struct PgBouncer {
    port: u16,
    _guard: Guard,
}

impl PgBouncer {
    /// In front of a cluster; `options` of its entry for all databases, such as `connect_query`.
    pub fn start(cluster: &Cluster, options: &str) -> PgBouncer {
        let program = std::env::var_os("PGSEAL_PGBOUNCER").expect("PGSEAL_PGBOUNCER: run make test");
        let port = free_port();
        let settings = format!(
            "[databases]\n* = host={} user=postgres {options}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 1\n\
             ignore_startup_parameters = extra_float_digits\n",
            cluster.socket_dir().display()
        );
        let file = cluster.write(format!("pgbouncer-{port}.ini"), &settings);
        let script = "\"$1\" \"$2\" & cat; kill $!; wait";
        let guard = Guard::new(as_server("sh"), script, &[Path::new(&program), &file]);
        let pooler = PgBouncer { port, _guard: guard };
        wait_for("PgBouncer's start", Duration::from_secs(60), || {
            pooler.config("postgres").connect(NoTls).is_ok()
        });
        pooler
    }

    pub fn connect(&self, database: &str) -> Client {
        self.config(database).connect(NoTls).expect("a connection through PgBouncer")
    }

    fn config(&self, database: &str) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).user("postgres").dbname(database);
        config
    }
}
