//! What happens when the KMS says no, is gone, or does not answer; with a real OpenBao.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};

use crate::support::{Cluster, OpenBao, Sql, wait_for, wait_until_active};

const INSERT: &str = r#"INSERT INTO docs (m) VALUES ('{"a": 1}')"#;
const FILTER: &str = r#"SELECT count(*) FROM docs WHERE m @> '{"a": 1}'"#;
const DECRYPT: &str = "SELECT pgseal.decrypt(m) FROM docs";
const FLUSH: &str = "SELECT pgseal.flush_keys()";
const USES: [&str; 3] = [INSERT, FILTER, DECRYPT];

/// Databases of one cluster, each with its own KMS endpoint and token.
static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| Cluster::start(&["pgseal.kms_timeout = '30s'"]));
/// A CREATE EXTENSION changes so many catalogs that an idle session may lose count of them, and forget its keys with the
/// rest: none runs while a test counts on keys that a session holds.
static EXTENSIONS: RwLock<()> = RwLock::new(());
/// For tests that take no more than their own key away.
static BAO: LazyLock<OpenBao> = LazyLock::new(OpenBao::start);

/// A database whose KMS is the Transit key of the same name.
struct Site {
    name: String,
    client: Client,
}

impl Site {
    /// With the keyring k and one row in docs.
    fn new(bao: &OpenBao) -> Site {
        static NUMBER: AtomicUsize = AtomicUsize::new(1);
        let name = format!("site_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        bao.create_key(&name);
        bao.allow(&name);
        let token = CLUSTER.write(&name, &bao.token(&name));
        let mut admin = CLUSTER.connect("postgres");
        admin.run(&format!("CREATE DATABASE {name}"));
        admin.run(&format!("ALTER DATABASE {name} SET pgseal.kms_endpoint = '{}'", bao.endpoint()));
        admin.run(&format!("ALTER DATABASE {name} SET pgseal.kms_token_file = '{}'", token.display()));
        let mut client = CLUSTER.connect(&name);
        let creating = EXTENSIONS.read().unwrap_or_else(PoisonError::into_inner);
        client.run("CREATE EXTENSION pgseal CASCADE");
        drop(creating);
        client.run(&format!("SELECT pgseal.create_keyring('k', ARRAY['$.a'], kms_key => '{name}')"));
        client.run(&format!("CREATE TABLE docs (id serial, m encrypted_jsonb(k)); {INSERT}"));
        Site { name, client }
    }

    fn session(&self) -> Client {
        CLUSTER.connect(&self.name)
    }
}

fn no_new_extensions() -> RwLockWriteGuard<'static, ()> {
    EXTENSIONS.write().unwrap_or_else(PoisonError::into_inner)
}

/// Every use of a key fails with this SQLSTATE and a hint, and stores nothing.
fn assert_all_fail(client: &mut Client, state: &str) {
    let keys_and_rows = "SELECT (SELECT count(*) FROM docs) + (SELECT count(*) FROM pgseal.keys)";
    let before: i64 = client.one(keys_and_rows);
    for sql in
        USES.into_iter().chain(["SELECT pgseal.rotate_key('k')", "SELECT pgseal.rotate_index_key('k')"])
    {
        let error = client.error(sql);
        assert_eq!(error.code().code(), state, "{sql}: {error}");
        assert!(error.hint().is_some(), "{sql}: {error}");
    }
    assert_eq!(client.one::<i64>(keys_and_rows), before);
}

fn assert_all_work(client: &mut Client) {
    for sql in USES {
        client.run(sql);
    }
}

/// How long the statement takes to fail, and how.
fn failure(client: &mut Client, sql: &str) -> (String, Duration) {
    let start = Instant::now();
    let state = client.state(sql);
    (state, start.elapsed())
}

/// Whatever needs no key works in a session that has none.
fn assert_ciphertext_is_served(site: &Site) {
    let mut client = site.session();
    for sql in [
        "CREATE INDEX docs_m ON docs USING gin (m)",
        "REINDEX TABLE docs",
        "VACUUM (FULL, ANALYZE) docs",
        "VACUUM ANALYZE docs",
        "CREATE TABLE copied AS SELECT * FROM docs",
        "COPY docs TO '/dev/null'",
        "DROP INDEX docs_m",
        "UPDATE docs SET id = id",
    ] {
        client.run(sql);
    }
    let sealed: String = client.one("SELECT textin(pgseal.encrypted_jsonb_out(m)) FROM docs LIMIT 1");
    assert!(sealed.starts_with("pgseal:"));
    client.run(&format!("BEGIN; INSERT INTO docs (m) VALUES ('{sealed}'); ROLLBACK"));
    assert!(client.one::<bool>("SELECT bool_and(pgseal.key_version(m) = 1) FROM docs"));
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pgseal.key_usage('docs', 'm')"), 1);
    let dump = CLUSTER.pg_dump("postgres", &[&site.name]);
    assert!(dump.status.success() && String::from_utf8_lossy(&dump.stdout).contains(&sealed));
    client.run("DROP TABLE copied");
}

#[test]
fn a_key_taken_away_stops_its_keyring_until_it_is_back() {
    let mut site = Site::new(&BAO);
    let wrapped: String = site.client.one("SELECT encode(wrapped, 'escape') FROM pgseal.data_key");
    assert!(wrapped.starts_with("vault:v1:"));
    let files = format!("file://{}", CLUSTER.key_dir().display());
    site.client.run(&format!("SELECT pgseal.create_keyring('files', kms_endpoint => '{files}')"));
    site.client.run("CREATE TABLE others (m encrypted_jsonb(files))");
    let mut other = site.session();
    assert_all_work(&mut site.client);
    assert_all_work(&mut other);

    BAO.deny(&site.name);
    assert_all_work(&mut other);
    site.client.run(FLUSH);
    assert_all_fail(&mut other, "28000");
    assert_all_fail(&mut site.client, "28000");
    // Typed, because an untyped literal is sealed under the default keyring first.
    site.client.run("INSERT INTO others VALUES ('{}'::jsonb)");
    site.client.run("SELECT pgseal.decrypt(m) FROM others");
    assert_ciphertext_is_served(&site);

    BAO.allow(&site.name);
    assert_all_work(&mut site.session());
    // A session remembers a denial for a moment.
    wait_for("reading again", Duration::from_secs(60), || other.batch_execute(DECRYPT).is_ok());
    assert_all_work(&mut other);
}

#[test]
fn an_old_version_that_is_shut_off_needs_a_rewrap_first() {
    let (mut rewrapped, mut left) = (Site::new(&BAO), Site::new(&BAO));
    let before: Vec<Vec<u8>> = rewrapped.client.column("SELECT pgseal.encrypted_jsonb_send(m) FROM docs");
    for site in [&rewrapped, &left] {
        BAO.rotate_key(&site.name);
    }
    assert_eq!(rewrapped.client.one::<i32>("SELECT pgseal.rewrap_keys('k')"), 2);
    let wrapped = "SELECT bool_and(convert_from(wrapped, 'UTF8') LIKE 'vault:v2:%') FROM pgseal.data_key";
    assert!(rewrapped.client.one::<bool>(wrapped));
    for site in [&rewrapped, &left] {
        BAO.set_min_decryption_version(&site.name, 2);
    }
    assert_eq!(
        rewrapped.session().column::<Vec<u8>>("SELECT pgseal.encrypted_jsonb_send(m) FROM docs"),
        before
    );
    assert_all_work(&mut rewrapped.session());
    left.client.run(FLUSH);
    for sql in USES {
        assert_eq!(left.client.state(sql), "28000", "{sql}");
    }
    assert_eq!(left.client.state("SELECT pgseal.rewrap_keys('k')"), "28000");
    BAO.set_min_decryption_version(&left.name, 1);
    assert_all_work(&mut left.session());
}

#[test]
fn a_deleted_key_is_a_denial() {
    let mut site = Site::new(&BAO);
    BAO.delete_key(&site.name);
    site.client.run(FLUSH);
    for sql in USES {
        assert_eq!(site.client.state(sql), "28000", "{sql}");
    }
    assert_ciphertext_is_served(&site);
}

#[test]
fn a_sealed_server_is_unavailable() {
    let bao = OpenBao::start();
    let mut site = Site::new(&bao);
    let _quiet = no_new_extensions();
    let mut warm = site.session();
    assert_all_work(&mut warm);
    bao.seal();
    assert_all_work(&mut warm);
    site.client.run(FLUSH);
    assert_all_fail(&mut site.client, "58030");
    assert_ciphertext_is_served(&site);
}

#[test]
fn a_stopped_server_leaves_cached_keys_until_their_time_is_up() {
    let bao = OpenBao::start();
    let mut site = Site::new(&bao);
    let _quiet = no_new_extensions();
    let mut cold = site.session();
    site.client.run("SET pgseal.key_cache_ttl = '2s'; SELECT 1");
    site.client.run(FLUSH);
    assert_all_work(&mut site.client);
    let warm_since = Instant::now();
    drop(bao);
    let works = USES.map(|sql| site.client.batch_execute(sql).is_ok());
    assert!(works == [true; 3] || warm_since.elapsed() > Duration::from_millis(1900), "{works:?}");
    for sql in USES {
        let (state, time) = failure(&mut cold, sql);
        assert_eq!(state, "58030");
        assert!(time < Duration::from_secs(20), "{time:?}");
    }
    std::thread::sleep(Duration::from_secs(2));
    assert_all_fail(&mut site.client, "58030");
    assert_ciphertext_is_served(&site);
}

#[test]
fn unwrapped_keys_last_as_long_as_the_setting_says() {
    let mut site = Site::new(&BAO);
    let mut asking = site.session();
    asking.run(&format!("SET pgseal.key_cache_ttl = 0; {DECRYPT}"));
    site.client.run("SET pgseal.key_cache_ttl = '2s'");
    site.client.run(FLUSH);
    let since = Instant::now();
    site.client.run(DECRYPT);
    BAO.deny(&site.name);
    assert_eq!(asking.state(DECRYPT), "28000");
    let works = site.client.batch_execute(DECRYPT).is_ok();
    assert!(works || since.elapsed() > Duration::from_millis(1900));
    std::thread::sleep(Duration::from_millis(2100));
    assert_eq!(site.client.state(DECRYPT), "28000");
}

#[test]
fn flushing_reaches_every_session_once_it_commits() {
    let mut site = Site::new(&BAO);
    let mut other = site.session();
    assert_all_work(&mut other);
    BAO.deny(&site.name);
    site.client.run(&format!("BEGIN; {FLUSH}"));
    assert_all_work(&mut other);
    site.client.run("COMMIT");
    assert_all_fail(&mut other, "28000");
}

#[test]
fn bad_and_missing_tokens_are_told_apart() {
    let mut site = Site::new(&BAO);
    let token = CLUSTER.key_dir().with_file_name(&site.name);
    let good = std::fs::read_to_string(&token).unwrap();
    CLUSTER.write(&site.name, "s.notatoken");
    site.client.run(FLUSH);
    assert_all_fail(&mut site.client, "28000");
    for bad in ["", "two words", "line\nline"] {
        CLUSTER.write(&site.name, bad);
        assert_all_fail(&mut site.session(), "58030");
    }
    std::fs::remove_file(&token).unwrap();
    let mut session = site.session();
    assert_all_fail(&mut session, "58030");
    assert!(session.error(DECRYPT).message().contains("token file"));
    session.run("SET pgseal.kms_token_file = ''");
    assert_all_fail(&mut session, "22023");
    // Read anew at each call, so a renewed token is used at once.
    CLUSTER.write(&site.name, &format!("{good}\n"));
    assert_all_work(&mut site.session());
}

/// A session that has no key, with a KMS that accepts connections and says nothing.
fn silenced(site: &mut Site, timeout: &str) -> (Client, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut session = site.session();
    session.run(&format!("SET pgseal.kms_endpoint = 'vault+http://127.0.0.1:{port}/transit'"));
    session.run(&format!("SET pgseal.kms_timeout = '{timeout}'"));
    (session, listener)
}

#[test]
fn a_silent_server_is_waited_for_no_longer_than_allowed() {
    let mut site = Site::new(&BAO);
    let (mut session, _listener) = silenced(&mut site, "500ms");
    for sql in USES {
        let (state, time) = failure(&mut session, sql);
        assert_eq!(state, "58030");
        assert!(time < Duration::from_secs(15), "{time:?}");
    }
    assert_all_fail(&mut session, "58030");
}

#[test]
fn waiting_for_the_kms_can_be_cancelled() {
    let mut site = Site::new(&BAO);
    let (mut session, _listener) = silenced(&mut site, "60s");
    session.run("SET statement_timeout = '300ms'");
    for sql in USES {
        let (state, time) = failure(&mut session, sql);
        assert_eq!(state, "57014");
        assert!(time < Duration::from_secs(15), "{time:?}");
    }
    session.run("RESET statement_timeout");

    let cancel = session.cancel_token();
    let pid: i32 = session.one("SELECT pg_backend_pid()");
    let query = std::thread::spawn(move || (failure(&mut session, DECRYPT), session));
    wait_until_active(&mut site.client, pid);
    cancel.cancel_query(NoTls).unwrap();
    let ((state, time), mut session) = query.join().unwrap();
    assert_eq!(state, "57014");
    assert!(time < Duration::from_secs(15), "{time:?}");

    let query = std::thread::spawn(move || session.batch_execute(DECRYPT).is_err());
    wait_until_active(&mut site.client, pid);
    site.client.run(&format!("SELECT pg_terminate_backend({pid})"));
    let gone = format!("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = {pid}");
    wait_for("the backend's end", Duration::from_secs(60), || site.client.one(&gone));
    assert!(query.join().unwrap());
}

#[test]
fn an_endpoint_that_cannot_be_one_is_refused() {
    let mut client = Site::new(&BAO).session();
    for endpoint in [
        "nowhere",
        "vault+http://10.0.0.1:8200/transit",
        "vault+https://u:p@host:8200/transit",
        "file://relative",
    ] {
        let create = format!("SELECT pgseal.create_keyring('x', kms_endpoint => '{endpoint}')");
        assert_eq!(client.state(&create), "22023", "{endpoint}");
        client.run(&format!("SET pgseal.kms_endpoint = '{endpoint}'"));
        assert_all_fail(&mut client, "22023");
    }
    let create = format!(
        "SELECT pgseal.create_keyring('x', kms_key => 'nosuch', kms_endpoint => '{}')",
        BAO.endpoint()
    );
    assert_eq!(client.state(&create), "28000");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pgseal.keyrings"), 1);
}

#[test]
fn key_files_must_be_there_and_private() {
    let mut site = Site::new(&BAO);
    let directory = CLUSTER.key_dir().join(&site.name);
    let file = directory.join("k.key");
    site.client.run(&format!("SET pgseal.kms_endpoint = 'file://{}'", directory.display()));
    site.client.run("DROP TABLE docs; SELECT pgseal.create_keyring('f', kms_key => 'k')");
    site.client.run("SELECT pgseal.set_default_keyring('f')");
    site.client.run(&format!("CREATE TABLE docs (m encrypted_jsonb(f)); {INSERT}"));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);

    std::fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    site.client.run(FLUSH);
    let error = site.client.error(DECRYPT);
    assert_eq!(error.code().code(), "58030");
    assert!(error.message().contains("mode 0600"), "{error}");
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    assert_all_work(&mut site.client);

    std::fs::rename(&file, directory.join("away")).unwrap();
    site.client.run(FLUSH);
    for sql in USES {
        assert_eq!(site.client.state(sql), "28000", "{sql}");
    }
    std::fs::rename(directory.join("away"), &file).unwrap();
    site.client.run(FLUSH);
    assert_all_work(&mut site.client);
    std::fs::rename(&directory, CLUSTER.key_dir().join("unmounted")).unwrap();
    site.client.run(FLUSH);
    assert_eq!(site.client.state(DECRYPT), "58030");
}

#[test]
fn key_files_inside_the_data_directory_are_refused() {
    let mut client = Site::new(&BAO).session();
    let data = CLUSTER.data_dir().display().to_string();
    let keys = CLUSTER.key_dir().display().to_string();
    std::os::unix::fs::symlink(&data, format!("{keys}/link")).unwrap();
    for directory in [
        data.clone(),
        format!("{data}/keys"),
        format!("{data}/base/../keys"),
        format!("{keys}/../data/keys"),
        format!("{keys}/link/keys"),
    ] {
        let create = format!("SELECT pgseal.create_keyring('x', kms_endpoint => 'file://{directory}')");
        let outcome = client.batch_execute(&create);
        let error = outcome.err().unwrap_or_else(|| panic!("{directory} is accepted"));
        assert_eq!(error.code().unwrap().code(), "22023", "{directory}");
    }
}
