use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use postgres::{Client, Config, NoTls};

use super::guard::Guard;
use super::{as_server, output, run, wait_for};

/// The folder of PostgreSQL's programs, from `PG_CONFIG`.
static BIN: LazyLock<PathBuf> = LazyLock::new(|| pg_config("--bindir").into());

/// Has the PostgreSQL that is tested not this module of contrib? Some builds come without; said to who reads the output.
pub fn lacks(module: &str) -> bool {
    let has = Path::new(&pg_config("--pkglibdir")).join(module).with_extension("so").exists();
    if !has {
        println!("not run: this PostgreSQL has no {module}");
    }
    !has
}

/// What the program `PG_CONFIG` says about the PostgreSQL that is tested.
pub fn pg_config(option: &str) -> String {
    let pg_config = std::env::var_os("PG_CONFIG").unwrap_or_else(|| "pg_config".into());
    run(Command::new(pg_config).arg(option)).trim_end().to_owned()
}

/// The major version of the PostgreSQL that is tested.
pub fn major_version() -> u32 {
    let version = pg_config("--version");
    let digits = version.trim_start_matches(|c: char| !c.is_ascii_digit());
    digits
        .split(|c: char| !c.is_ascii_digit())
        .next()
        .and_then(|major| major.parse().ok())
        .expect("a version")
}

/// A PostgreSQL of its own in a temporary directory, reached through a Unix socket there, hence on no port.
/// Its superuser is "postgres". Dropping it stops the server and removes the directory.
pub struct Cluster {
    dir: PathBuf,
    bin: PathBuf,
    environment: Vec<(String, String)>,
    _guard: Guard,
}

impl Cluster {
    /// A running server with these lines in its postgresql.conf.
    pub fn start(conf: &[&str]) -> Cluster {
        Self::start_with(conf, &[])
    }

    /// The same with these variables in its environment, besides this process's own.
    pub fn start_with(conf: &[&str], environment: &[(&str, &str)]) -> Cluster {
        let cluster = Self::directory(&BIN, environment);
        cluster.initialise(conf);
        cluster.start_again();
        cluster
    }

    /// Data directory and directory of keys of a server that has not run yet.
    fn initialise(&self, conf: &[&str]) {
        run(as_server("mkdir").args(["-m", "700"]).arg(self.key_dir()));
        run(as_server(self.bin.join("initdb"))
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"])
            .args(["--data-checksums", "--no-sync", "--pgdata"])
            .arg(self.data_dir()));
        // The settings given come last, hence win.
        let mut settings = format!("unix_socket_directories = '{}'\n", self.dir.display());
        settings += &format!("pgseal.kms_endpoint = 'file://{}'\n", self.key_dir().display());
        settings += "listen_addresses = ''\nfsync = off\nmax_connections = 40\n";
        self.write("data/postgresql.conf", &(settings + &conf.join("\n") + "\n"));
    }

    /// The same cluster as the PostgreSQL of `pg_config` runs it after its pg_upgrade, with the same keys. This one
    /// is stopped.
    pub fn upgraded(&self, pg_config: &OsStr) -> Cluster {
        let bin = run(Command::new(pg_config).arg("--bindir"));
        let upgraded = Self::directory(Path::new(bin.trim_end()), &[]);
        upgraded.initialise(&[&format!("pgseal.kms_endpoint = 'file://{}'", self.key_dir().display())]);
        self.forget_attribute_versions(pg_config);
        self.stop();
        let mut pg_upgrade = as_server(upgraded.bin.join("pg_upgrade"));
        pg_upgrade.arg("--old-bindir").arg(&self.bin).arg("--new-bindir").arg(&upgraded.bin);
        pg_upgrade.arg("--old-datadir").arg(self.data_dir()).arg("--new-datadir").arg(upgraded.data_dir());
        pg_upgrade.arg("--socketdir").arg(&upgraded.dir).args(["--username=postgres", "--no-sync"]);
        let done = output(pg_upgrade.current_dir(&upgraded.dir));
        let said = |stdout: &[u8]| String::from_utf8_lossy(stdout).into_owned();
        let logs = || {
            let tail = "tail -n 20 data/pg_upgrade_output.d/*/log/*.log";
            said(&output(Command::new("sh").args(["-c", tail]).current_dir(&upgraded.dir)).stdout)
        };
        assert!(done.status.success(), "{}\n{}", said(&done.stdout), logs());
        upgraded.start_again();
        upgraded
    }

    /// Minor versions of November 2026 and later (15.20, 17.12) keep versions of attributes in an option that older
    /// ones do not accept: pg_upgrade fails for any table, unless it is as if made before.
    fn forget_attribute_versions(&self, pg_config: &OsStr) {
        let headers = run(Command::new(pg_config).arg("--includedir-server"));
        let header = std::fs::read_to_string(Path::new(headers.trim_end()).join("catalog/pg_attribute.h"));
        if header.is_ok_and(|text| text.contains("pg_attver")) {
            return;
        }
        let forget = "UPDATE pg_attribute SET attoptions = nullif(ARRAY(SELECT o FROM unnest(attoptions) o WHERE o NOT LIKE 'pg\\_attver=%'), '{}')
            WHERE attoptions::text LIKE '%pg\\_attver=%'";
        self.connect("postgres").batch_execute(forget).expect("an update of the catalog");
    }

    /// A directory of its own that goes with the value, with no server in it yet.
    fn directory(bin: &Path, environment: &[(&str, &str)]) -> Cluster {
        let dir = PathBuf::from(run(as_server("mktemp").args(["-d", "/tmp/pgseal-test-XXXXXX"])).trim_end());
        // More than once, since this process may end while initdb or the server is starting.
        let cleanup = r#"cat
            while "$1" -D "$2/data" -m immediate -w stop; pgrep -f "$2/data"; do sleep 0.1; done
            rm -rf "$2""#;
        let bin = bin.to_owned();
        let guard = Guard::new(as_server("sh"), cleanup, &[bin.join("pg_ctl"), dir.clone()]);
        let environment =
            environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Cluster { dir, bin, environment, _guard: guard }
    }

    /// A running hot standby of this server with these lines in its postgresql.conf.
    pub fn standby(&self, conf: &str) -> Cluster {
        let standby = self.base_backup(&["--write-recovery-conf"]);
        standby.configure(conf);
        standby.start_again();
        standby
    }

    /// A base backup of this server in a directory of its own. Started, it recovers into a server of its own.
    pub fn base_backup(&self, arguments: &[&str]) -> Cluster {
        let backup = Self::directory(&self.bin, &[]);
        run(as_server(self.bin.join("pg_basebackup"))
            .args(["--username=postgres", "--checkpoint=fast", "--no-sync"])
            .args(arguments)
            .arg("--host")
            .arg(&self.dir)
            .arg("--pgdata")
            .arg(backup.data_dir()));
        backup.configure("");
        backup
    }

    /// What pg_combinebackup makes of a full backup and the incremental ones that follow it, as [`Cluster::base_backup`].
    pub fn combined(backups: &[&Cluster]) -> Cluster {
        let combined = Self::directory(&BIN, &[]);
        run(as_server(combined.bin.join("pg_combinebackup"))
            .arg("--no-sync")
            .args(backups.iter().map(|backup| backup.data_dir()))
            .arg("--output")
            .arg(combined.data_dir()));
        combined.configure("");
        combined
    }

    /// Makes this server, which has stopped, a standby of one that was promoted in its place, and starts it.
    pub fn rewind_to(&self, source: &Cluster) {
        // pg_rewind takes the source's timeline from its last checkpoint.
        source.connect("postgres").batch_execute("CHECKPOINT").expect("a checkpoint");
        let server = format!("host={} user=postgres dbname=postgres", source.dir.display());
        run(as_server(self.bin.join("pg_rewind"))
            .args(["--write-recovery-conf", "--no-sync", "--source-server", &server, "--target-pgdata"])
            .arg(self.data_dir()));
        self.configure("");
        self.start_again();
    }

    /// Starts a [`Cluster::base_backup`] that recovers as these lines of postgresql.conf say, and then is a server.
    pub fn recover(&self, conf: &str) {
        self.configure(&format!("{conf}recovery_target_action = 'promote'\n"));
        self.write("data/recovery.signal", "");
        self.start_again();
    }

    /// Waits until this standby has replayed what its primary has written so far.
    pub fn catch_up(&self, primary: &mut Client) {
        let written = primary.query_one("SELECT pg_current_wal_lsn()::text", &[]).expect("a place in WAL");
        let there = format!("SELECT pg_last_wal_replay_lsn() >= '{}'", written.get::<_, String>(0));
        let mut own = self.connect("postgres");
        let replayed = || own.query_one(&there, &[]).is_ok_and(|row| row.get(0));
        wait_for("the standby", Duration::from_secs(60), replayed);
    }

    pub fn promote(&self) {
        self.pg_ctl(&["-w", "promote"]);
    }

    /// Ends postgresql.conf, which is a copy of another server's, with its own socket and these lines.
    fn configure(&self, conf: &str) {
        let path = self.data_dir().join("postgresql.conf");
        let settings = std::fs::read_to_string(path).expect("postgresql.conf");
        let own = format!("unix_socket_directories = '{}'\n", self.dir.display());
        self.write("data/postgresql.conf", &(settings + &own + conf));
    }

    /// A running server with pgseal in its database "postgres". Its keys are files in [`Cluster::key_dir`] unless
    /// `conf` says otherwise.
    pub fn with_pgseal(conf: &[&str]) -> Cluster {
        let cluster = Cluster::start(conf);
        cluster
            .connect("postgres")
            .batch_execute("CREATE EXTENSION pgseal CASCADE")
            .expect("the extension pgseal");
        cluster
    }

    pub fn connect(&self, database: &str) -> Client {
        self.connect_as("postgres", database)
    }

    pub fn connect_as(&self, role: &str, database: &str) -> Client {
        self.config(role, database).connect(NoTls).expect("a connection")
    }

    /// For tests that need the error of a failed connection, or options of their own.
    pub fn config(&self, role: &str, database: &str) -> Config {
        let mut config = Config::new();
        config.host_path(&self.dir).user(role).dbname(database);
        config
    }

    /// psql without a .psqlrc, stopping at the first error; `sql` is its input.
    pub fn psql<S: AsRef<OsStr>>(&self, database: &str, arguments: &[S], sql: &str) -> Output {
        let mut psql = self.program("psql", "postgres");
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database]).args(arguments);
        psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = psql.spawn().expect("psql");
        let mut input = child.stdin.take().expect("its input");
        let text = sql.to_owned();
        let writer = std::thread::spawn(move || drop(input.write_all(text.as_bytes())));
        let output = child.wait_with_output().expect("psql");
        writer.join().expect("psql's input");
        output
    }

    pub fn pg_dump<S: AsRef<OsStr>>(&self, role: &str, arguments: &[S]) -> Output {
        output(self.program("pg_dump", role).args(arguments))
    }

    /// One of PostgreSQL's client programs, told how to reach this server as `role`.
    pub fn program(&self, name: &str, role: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        for variable in ["PGPORT", "PGSERVICE", "PGOPTIONS", "PGPASSWORD", "PGDATABASE"] {
            command.env_remove(variable);
        }
        command.env("PGHOST", &self.dir).env("PGUSER", role).env("PGCLIENTENCODING", "UTF8");
        command
    }

    pub fn start_again(&self) {
        self.pg_ctl(&["-w", "-l", &self.log_file(), "start"]);
    }

    pub fn stop(&self) {
        self.pg_ctl(&["-w", "-m", "fast", "stop"]);
    }

    pub fn restart(&self) {
        self.stop();
        self.start_again();
    }

    /// Ends every process of the server at once, as a power failure would.
    pub fn crash(&self) {
        self.pg_ctl(&["-w", "-m", "immediate", "stop"]);
    }

    /// kill -9 of the server and all its processes.
    pub fn kill(&self) {
        let postmaster = self.postmaster().to_string();
        let children = output(Command::new("pgrep").args(["-P", &postmaster])).stdout;
        let children = String::from_utf8_lossy(&children).into_owned();
        let all = || std::iter::once(postmaster.as_str()).chain(children.split_whitespace());
        // Children may end by themselves once they miss their parent.
        output(Command::new("kill").arg("-9").args(all()));
        let runs = |pid: &str| {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            state.is_ok_and(|state| !state.contains(") Z "))
        };
        wait_for("the end of the server", Duration::from_secs(60), || !all().any(runs));
        // Where nobody reaps it, the dead process still has the number in these.
        for lock in [self.data_dir().join("postmaster.pid"), self.dir.join(".s.PGSQL.5432.lock")] {
            std::fs::remove_file(lock).expect("a lock file of the server");
        }
    }

    /// The server's log so far; statements are in it in the encoding of their database.
    pub fn log(&self) -> String {
        let log = std::fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Where clients find the server's socket.
    pub fn socket_dir(&self) -> &Path {
        &self.dir
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// A folder for `file://` keys, outside the data directory, which only the server's user may read.
    pub fn key_dir(&self) -> PathBuf {
        self.dir.join("keys")
    }

    /// Writes a file that the server's user owns and only it may read, such as a KMS token.
    pub fn write(&self, name: impl AsRef<Path>, text: &str) -> PathBuf {
        let path = self.dir.join(name);
        let mut shell = as_server("sh");
        shell.args(["-c", "umask 077; cat > \"$1\"", "write"]).arg(&path).stdin(Stdio::piped());
        let mut child = shell.spawn().expect("sh");
        child.stdin.take().expect("its input").write_all(text.as_bytes()).expect("write");
        assert!(child.wait().expect("sh").success(), "cannot write {path:?}");
        path
    }

    /// Process id of the server that runs now.
    pub fn postmaster(&self) -> u32 {
        let file = std::fs::read_to_string(self.data_dir().join("postmaster.pid")).expect("postmaster.pid");
        file.lines().next().and_then(|line| line.parse().ok()).expect("a process id")
    }

    /// The server itself, for a test that starts it in its own way.
    pub fn server_program(&self) -> PathBuf {
        self.bin.join("postgres")
    }

    fn log_file(&self) -> String {
        self.dir.join("log").display().to_string()
    }

    fn pg_ctl(&self, arguments: &[&str]) {
        let mut pg_ctl = as_server(self.bin.join("pg_ctl"));
        pg_ctl.arg("-D").arg(self.data_dir()).args(arguments).envs(self.environment.iter().cloned());
        // The server would keep a pipe open, and whoever reads it waiting.
        let status = pg_ctl.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.expect("pg_ctl").success(), "pg_ctl {arguments:?}:\n{}", self.log());
    }
}
