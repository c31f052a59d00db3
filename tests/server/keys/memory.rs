//! Where unwrapped keys are in a server's memory, and that they are nowhere once they were flushed or have expired. Read
//! from /proc/PID/mem.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hkdf::Hkdf;
use memchr::memmem;
use pgseal::core::secret::RootKey;
use pgseal::keys::context::{Purpose, WrapContext};
use pgseal::kms::{Settings, open};
use postgres::Client;
use sha2::Sha256;

use crate::support::{Cluster, OpenBao, Sql, wait_for};

const USE: &str = r#"SELECT pgseal.decrypt(m) FROM docs WHERE m @> '{"a": 1}'"#;

/// A mapping of a process.
struct Mapping {
    start: u64,
    end: u64,
    /// VmFlags of /proc/PID/smaps.
    flags: String,
}

fn mappings(pid: i32) -> Vec<Mapping> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps"))
        .expect("smaps: run as root or as the server's user");
    let mut found: Vec<Mapping> = Vec::new();
    for line in text.lines() {
        let range = line.split_whitespace().next().and_then(|word| word.split_once('-'));
        let range = range.and_then(|(start, end)| {
            Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
        });
        if let Some((start, end)) = range {
            found.push(Mapping { start, end, flags: String::new() });
        } else if let (Some(flags), Some(last)) = (line.strip_prefix("VmFlags: "), found.last_mut()) {
            last.flags = flags.to_owned();
        }
    }
    found
}

/// Every mapping of the process that holds `wanted`, once for each place.
fn places<'a>(pid: i32, mappings: &'a [Mapping], wanted: &[u8]) -> Vec<&'a Mapping> {
    let memory =
        File::open(format!("/proc/{pid}/mem")).expect("its memory: run as root or as the server's user");
    let mut found = Vec::new();
    for mapping in mappings.iter().filter(|mapping| mapping.flags.contains("rd")) {
        let mut bytes = vec![0; (mapping.end - mapping.start) as usize];
        // Some of the kernel's own pages cannot be read.
        if memory.read_exact_at(&mut bytes, mapping.start).is_ok() {
            found.extend(memmem::find_iter(&bytes, wanted).map(|_| mapping));
        }
    }
    found
}

/// A root key in every form that a backend gives it: as it is, as the KMS sends it, and what is derived from it.
struct Forms(Vec<(&'static str, Vec<u8>)>);

impl Forms {
    fn new(root: &RootKey, uuid: &[u8; 16], labels: &[(&'static str, &str)]) -> Forms {
        let text = STANDARD.encode(root.expose());
        let derive = |label: &str| {
            let mut out = vec![0; 32];
            Hkdf::<Sha256>::new(Some(uuid), root.expose()).expand(label.as_bytes(), &mut out).unwrap();
            out
        };
        let mut forms = vec![("root", root.expose().to_vec()), ("base64", text.into_bytes())];
        forms.extend(labels.iter().map(|(name, label)| (*name, derive(label))));
        Forms(forms)
    }

    /// The forms that the process has somewhere.
    fn in_memory(&self, pid: i32) -> Vec<&'static str> {
        let mappings = mappings(pid);
        self.0
            .iter()
            .filter(|(_, bytes)| !places(pid, &mappings, bytes).is_empty())
            .map(|(name, _)| *name)
            .collect()
    }
}

struct Site {
    cluster: Cluster,
    bao: OpenBao,
    client: Client,
}

impl Site {
    fn new(conf: &[&str]) -> Site {
        let bao = OpenBao::start_with_tls();
        bao.create_key("k");
        let cluster = Cluster::start(&[conf, &["shared_buffers = '16MB'"]].concat());
        let token = cluster.write("token", "root");
        let authority = cluster.write("authority", &bao.authority());
        let mut client = cluster.connect("postgres");
        client.run("LOAD 'pgseal'");
        client.run(&format!("ALTER SYSTEM SET pgseal.kms_endpoint = '{}'", bao.endpoint()));
        client.run(&format!("ALTER SYSTEM SET pgseal.kms_token_file = '{}'", token.display()));
        client.run(&format!("ALTER SYSTEM SET pgseal.kms_ca_file = '{}'", authority.display()));
        cluster.restart();
        let mut client = cluster.connect("postgres");
        client.run("CREATE EXTENSION pgseal CASCADE; SELECT pgseal.create_keyring('k', ARRAY['$.a'], 'k')");
        client
            .run(r#"CREATE TABLE docs (m encrypted_jsonb(k)); INSERT INTO docs VALUES ('{"a": 1}'::jsonb)"#);
        Site { cluster, bao, client }
    }

    /// The keyring's two keys, from the KMS itself, in all their forms.
    fn forms(&mut self) -> [Forms; 2] {
        let (uuid, [data, index]) = self.roots();
        [
            Forms::new(&data, &uuid, &[("aead", "pgseal/v1/data/aead"), ("filter", "pgseal/v1/data/filter")]),
            Forms::new(&index, &uuid, &[("token", "pgseal/v1/index/token")]),
        ]
    }

    /// The key of a flat index's pages.
    fn page_key(&mut self, index: &str, dimensions: u16) -> Vec<u8> {
        let (uuid, [data, _]) = self.roots();
        self.client.run("CHECKPOINT");
        let file: String = self.client.one(&format!("SELECT pg_relation_filepath('{index}')"));
        let first = std::fs::read(self.cluster.data_dir().join(file)).unwrap();
        // See core/ivf/key.rs: uuid of the index, dimensions, metric, bits and format.
        let info = [&first[24..40], &dimensions.to_be_bytes(), &[1, 1, 1]].concat();
        let (mut secret, mut key) = ([0; 32], vec![0; 32]);
        let extracted = Hkdf::<Sha256>::new(Some(&uuid), data.expose());
        extracted.expand(b"pgseal/v1/data/ivf", &mut secret).unwrap();
        Hkdf::<Sha256>::from_prk(&secret).unwrap().expand(&info, &mut key).unwrap();
        key
    }

    fn roots(&mut self) -> ([u8; 16], [RootKey; 2]) {
        let row = self.client.query_one(
            "SELECT decode(replace(uuid::text, '-', ''), 'hex'), d.wrapped, i.wrapped FROM pgseal.keyring k
               JOIN pgseal.data_key d ON d.keyring = k.id JOIN pgseal.index_key i ON i.keyring = k.id",
            &[],
        );
        let row = row.unwrap();
        let uuid: [u8; 16] = row.get::<_, Vec<u8>>(0).try_into().unwrap();
        let mut settings = Settings::new(Duration::from_secs(5), || false);
        settings.vault.token_file = Some(self.cluster.write("token", "root"));
        settings.ca_file = Some(self.cluster.write("authority", &self.bao.authority()));
        let kms = open(&self.bao.endpoint(), &settings).unwrap();
        let context = |purpose| WrapContext { keyring: uuid, purpose, version: 1 };
        let data = kms.unwrap("k", &context(Purpose::Data), row.get(1)).unwrap();
        let index = kms.unwrap("k", &context(Purpose::Index), row.get(2)).unwrap();
        (uuid, [data, index])
    }
}

/// A session that has used both keys.
fn user(site: &Site) -> (Client, i32) {
    let mut session = site.cluster.connect("postgres");
    session.run(USE);
    let pid = session.one("SELECT pg_backend_pid()");
    (session, pid)
}

#[test]
fn a_key_is_nowhere_in_memory_after_a_flush_and_after_its_time() {
    let mut site = Site::new(&[]);
    let [data, index] = site.forms();

    let (mut session, pid) = user(&site);
    // AES's first round keys are the key itself: what is in use can be found, so the search works.
    assert_eq!(data.in_memory(pid), ["aead", "filter"]);
    let mappings = mappings(pid);
    for mapping in places(pid, &mappings, &data.0[2].1) {
        assert!(mapping.flags.contains(" dd"), "a core dump would have the key: {}", mapping.flags);
    }
    site.client.run("SELECT pgseal.flush_keys()");
    session.run("SELECT 1");
    assert_eq!([data.in_memory(pid), index.in_memory(pid)], [[""; 0]; 2], "after a flush");

    site.client.run("ALTER SYSTEM SET pgseal.key_cache_ttl = '3s'");
    site.client.run("SELECT pg_reload_conf()");
    let (_idle, idle) = user(&site);
    wait_for("the end of its time, in an idle session", Duration::from_secs(60), || {
        [data.in_memory(idle), index.in_memory(idle)] == [[""; 0]; 2]
    });
}

#[test]
fn an_open_cursor_keeps_no_key_of_its_index() {
    let mut site = Site::new(&[]);
    site.client.run(
        "CREATE TABLE vectors (v encrypted_vector(k, 8));
         INSERT INTO vectors SELECT ARRAY[i, 2, 3, 4, 5, 6, 7, 8]::real[] FROM generate_series(1, 500) i;
         CREATE INDEX vectors_v ON vectors USING sealed_ivf (v encrypted_vector_l2_ops)",
    );
    let key = site.page_key("vectors_v", 8);
    let mut session = site.cluster.connect("postgres");
    let pid = session.one("SELECT pg_backend_pid()");
    session.run("SET enable_seqscan = off; BEGIN; DECLARE c CURSOR FOR SELECT 1 FROM vectors ORDER BY v <-> '[1,2,3,4,5,6,7,8]'; FETCH c");
    let before = mappings(pid);
    let found = places(pid, &before, &key);
    assert!(!found.is_empty(), "while it is kept");
    assert!(found.iter().all(|mapping| mapping.flags.contains(" dd")), "a core dump would have the key");
    site.client.run("SELECT pgseal.flush_keys()");
    // A lock on something new: where a session takes in what others did.
    session.run("SELECT FROM pg_aggregate LIMIT 1");
    assert!(places(pid, &mappings(pid), &key).is_empty(), "after a flush");
    session.run("FETCH 10 c; COMMIT");
}

#[test]
fn shared_keys_are_out_of_core_dumps_and_wiped_by_a_flush() {
    let mut site = Site::new(&["shared_preload_libraries = 'pgseal'"]);
    let [data, index] = site.forms();
    let (mut session, pid) = user(&site);
    assert_eq!(data.in_memory(pid), ["root", "aead", "filter"]);
    let mappings = mappings(pid);
    let shared = places(pid, &mappings, &data.0[0].1);
    assert_eq!(shared.len(), 1);
    assert!(shared[0].flags.contains(" dd"), "a core dump would have the key: {}", shared[0].flags);
    site.client.run("SELECT pgseal.flush_keys()");
    session.run("SELECT 1");
    assert_eq!([data.in_memory(pid), index.in_memory(pid)], [[""; 0]; 2]);
}
