//! The clients of Google Cloud KMS and Azure Key Vault against tests/support/clouds.py, a stand-in that does the real
//! cryptography and checks every request. PGSEAL_CLOUDS names a Python that has the package cryptography. Neither
//! client has been run against the real service.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use pgseal::core::rng;
use pgseal::keys::context::{Purpose, WrapContext};
use pgseal::kms::{Class, Environment, Kms, KmsError, Settings, Token, open};
use serde_json::{Value, json};
use tempfile::TempDir;

const CONTEXT: WrapContext =
    WrapContext { keyring: *b"0123456789abcdef", purpose: Purpose::Data, version: 1 };
const OTHER: WrapContext = WrapContext { purpose: Purpose::Index, ..CONTEXT };

thread_local! {
    /// The environment of a test.
    static VARIABLES: RefCell<HashMap<&'static str, String>> = RefCell::default();
}

fn variable(name: &str) -> Option<String> {
    VARIABLES.with_borrow(|variables| variables.get(name).cloned())
}

fn set(name: &'static str, value: impl Into<String>) {
    VARIABLES.with_borrow_mut(|variables| variables.insert(name, value.into()));
}

fn unset_all() {
    VARIABLES.with_borrow_mut(HashMap::clear);
}

/// The stand-in, a process of its own.
struct Clouds {
    child: Child,
    port: u16,
    directory: TempDir,
}

impl Clouds {
    fn start() -> Self {
        let python = std::env::var("PGSEAL_CLOUDS")
            .expect("set PGSEAL_CLOUDS to a Python with the package cryptography");
        let directory = tempfile::tempdir().unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/clouds.py");
        let mut command = Command::new(&python);
        command.arg(script).arg(directory.path()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("PGSEAL_CLOUDS={python}: {error}"));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().expect("clouds.py prints its port");
        Clouds { child, port, directory }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn file(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    fn put(&self, name: &str, text: &str) -> String {
        std::fs::write(self.file(name), text).unwrap();
        self.file(name)
    }

    fn control(&self, order: Value) -> Value {
        let mut answer = ureq::post(format!("{}/stub", self.url())).send(order.to_string()).unwrap();
        serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap()
    }

    fn fault(&self, on: &str, kind: impl Into<Value>, times: usize) {
        self.control(json!({ "do": "fault", "on": on, "kind": kind.into(), "times": times }));
    }

    /// The requests since the last time, which were all as the definitions say; what is left of faults is dropped.
    fn calls(&self) -> Vec<String> {
        let report = self.control(json!({ "do": "report" }));
        assert_eq!(report["wrong"], json!([]), "malformed requests");
        report["calls"].as_array().unwrap().iter().map(|call| call.as_str().unwrap().to_owned()).collect()
    }

    fn google(&self) -> Rc<dyn Kms> {
        self.google_with(&settings())
    }

    fn google_with(&self, settings: &Settings) -> Rc<dyn Kms> {
        let ring = "gcp-kms://projects/p/locations/l/keyRings/r";
        open(&format!("{ring}?endpoint={}", self.url()), settings).unwrap()
    }

    fn azure(&self) -> Rc<dyn Kms> {
        self.azure_with(&settings())
    }

    fn azure_with(&self, settings: &Settings) -> Rc<dyn Kms> {
        open(&format!("azure-kv://name.vault.azure.net?endpoint={}", self.url()), settings).unwrap()
    }

    fn with_account(&self) {
        set("GOOGLE_APPLICATION_CREDENTIALS", self.file("account.json"));
    }

    fn with_secret(&self) {
        set("AZURE_CLIENT_SECRET", "s~cr&t+1");
        set("AZURE_TENANT_ID", "tenant-1");
        set("AZURE_CLIENT_ID", "client-1");
        set("AZURE_AUTHORITY_HOST", format!("{}/", self.url()));
    }
}

impl Drop for Clouds {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn settings() -> Settings {
    Settings { environment: Environment::new(variable), ..Settings::new(Duration::from_secs(60), || false) }
}

fn with_token(token: &str) -> Settings {
    Settings { token: Token::parse(token).map(Rc::new), ..settings() }
}

#[track_caller]
fn refused<T>(result: Result<T, KmsError>) -> KmsError {
    let error = result.err().expect("an error");
    assert!(!error.to_string().contains("canary"), "{error}");
    error
}

#[track_caller]
fn denied<T>(result: Result<T, KmsError>) -> String {
    let error = refused(result);
    assert_eq!(error.class(), Class::Denied, "{error}");
    error.to_string()
}

/// What both services have in common.
fn goes_and_comes_back(clouds: &Clouds, kms: &dyn Kms) {
    kms.ensure_key("main").unwrap();
    let root = rng::root_key().unwrap();
    let old = kms.wrap("main", &CONTEXT, &root).unwrap();
    assert_eq!(kms.unwrap("main", &CONTEXT, &old).unwrap().expose(), root.expose());
    assert!(denied(kms.unwrap("main", &OTHER, &old)).contains("wrong KMS key or context"));
    denied(kms.unwrap("other", &CONTEXT, &old));
    denied(kms.rewrap("main", &OTHER, &old));
    let mut flipped = old.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert!(denied(kms.unwrap("main", &CONTEXT, &flipped)).contains("wrong KMS key or context"));
    assert!(denied(kms.unwrap("missing", &CONTEXT, &old)).contains("no such key"));
    assert!(denied(kms.ensure_key("missing")).contains("no such key"));

    clouds.control(json!({ "do": "rotate", "key": "main" }));
    let new = kms.rewrap("main", &CONTEXT, &old).unwrap();
    for wrapped in [&old, &new] {
        assert_eq!(kms.unwrap("main", &CONTEXT, wrapped).unwrap().expose(), root.expose());
    }
    clouds.control(json!({ "do": "off", "key": "main", "version": 1 }));
    assert!(denied(kms.unwrap("main", &CONTEXT, &old)).contains("disabled"));
    assert!(denied(kms.rewrap("main", &CONTEXT, &old)).contains("disabled"));
    assert_eq!(kms.unwrap("main", &CONTEXT, &new).unwrap().expose(), root.expose());
    clouds.control(json!({ "do": "off", "key": "main", "version": 2 }));
    assert!(denied(kms.unwrap("main", &CONTEXT, &new)).contains("disabled"));
    assert!(denied(kms.wrap("main", &CONTEXT, &root)).contains("disabled"));
    assert!(denied(kms.ensure_key("main")).contains("disabled"));
    clouds.calls();
}

#[test]
fn google_keys_go_and_come_back_bound_to_key_and_context() {
    let clouds = Clouds::start();
    clouds.with_account();
    let kms = clouds.google();
    goes_and_comes_back(&clouds, &*kms);
    for bad in [vec![], vec![1; 4097]] {
        assert!(kms.unwrap("main", &CONTEXT, &bad).err().unwrap().is_foreign());
    }
    assert!(clouds.calls().is_empty(), "what is no ciphertext is not sent");
}

#[test]
fn azure_keys_go_and_come_back_bound_to_key_and_context() {
    let clouds = Clouds::start();
    clouds.with_secret();
    let kms = clouds.azure();
    goes_and_comes_back(&clouds, &*kms);
    let wrapped = kms.wrap("other", &CONTEXT, &rng::root_key().unwrap()).unwrap();
    assert_eq!(wrapped[..2], [1, 32], "the format and the length of the version");
    assert_eq!(wrapped.len(), 2 + 32 + 256);
    let strange = [&wrapped[..2], &[b'0'; 32], &wrapped[34..]].concat();
    assert!(denied(kms.unwrap("other", &CONTEXT, &strange)).contains("no such version"));
    clouds.calls();
    for bad in [&wrapped[..34], &wrapped[..20], &wrapped[..1], b"", &[&[2], &wrapped[1..]].concat()] {
        assert!(kms.unwrap("other", &CONTEXT, bad).err().unwrap().is_foreign());
    }
    assert!(clouds.calls().is_empty(), "what was not wrapped there is not sent");
}

/// Where tokens come from: `source` is asked once for several operations, and once more where a token is refused.
fn keeps_its_token(clouds: &Clouds, kms: &dyn Kms, source: &str, operation: &str) {
    let root = rng::root_key().unwrap();
    clouds.calls();
    let wrapped = kms.wrap("main", &CONTEXT, &root).unwrap();
    kms.wrap("main", &CONTEXT, &root).unwrap();
    assert_eq!(clouds.calls(), [source, operation, operation]);

    clouds.control(json!({ "do": "revoke" }));
    kms.wrap("main", &CONTEXT, &root).unwrap();
    assert_eq!(clouds.calls(), [operation, source, operation]);
    clouds.fault(operation, json!({ "status": 401 }), 9);
    assert!(denied(kms.wrap("main", &CONTEXT, &root)).contains("token is not valid"));
    assert_eq!(clouds.calls(), [operation, source, operation], "once anew, not more");
    assert_eq!(kms.unwrap("main", &CONTEXT, &wrapped).unwrap().expose(), root.expose());
    clouds.calls();

    // A token that expires within a minute is not kept.
    clouds.control(json!({ "do": "lifetime", "seconds": 59 }));
    clouds.control(json!({ "do": "revoke" }));
    kms.wrap("main", &CONTEXT, &root).unwrap();
    kms.wrap("main", &CONTEXT, &root).unwrap();
    assert_eq!(clouds.calls(), [operation, source, operation, source, operation]);
    clouds.control(json!({ "do": "lifetime", "seconds": 3600 }));
}

#[test]
fn google_tokens_come_from_an_account_or_the_metadata_server() {
    let clouds = Clouds::start();
    clouds.with_account();
    keeps_its_token(&clouds, &*clouds.google(), "account", "encrypt");
    unset_all();
    set("GCE_METADATA_HOST", format!("127.0.0.1:{}", clouds.port));
    keeps_its_token(&clouds, &*clouds.google(), "metadata", "encrypt");
}

#[test]
fn azure_tokens_come_from_secret_workload_or_managed_identity() {
    let clouds = Clouds::start();
    clouds.with_secret();
    keeps_its_token(&clouds, &*clouds.azure(), "login", "wrapkey");
    set("AZURE_CLIENT_SECRET", "");
    set("AZURE_CLIENT_SECRET_FILE", clouds.put("secret", "s~cr&t+1\n"));
    keeps_its_token(&clouds, &*clouds.azure(), "login", "wrapkey");
    set("AZURE_CLIENT_SECRET_FILE", "");
    set("AZURE_FEDERATED_TOKEN_FILE", clouds.put("federated", "federated.j.wt\n"));
    keeps_its_token(&clouds, &*clouds.azure(), "login", "wrapkey");

    unset_all();
    set("AZURE_POD_IDENTITY_AUTHORITY_HOST", clouds.url());
    keeps_its_token(&clouds, &*clouds.azure(), "imds", "wrapkey");
    set("AZURE_CLIENT_ID", "client-1");
    keeps_its_token(&clouds, &*clouds.azure(), "imds", "wrapkey");
    unset_all();
    set("IDENTITY_ENDPOINT", format!("{}/msi/token", clouds.url()));
    set("IDENTITY_HEADER", "header-1");
    keeps_its_token(&clouds, &*clouds.azure(), "service", "wrapkey");
}

#[test]
fn a_session_s_own_token_is_used_alone() {
    let clouds = Clouds::start();
    clouds.with_account();
    clouds.with_secret();
    let root = rng::root_key().unwrap();
    clouds.google_with(&with_token("brought-google")).wrap("main", &CONTEXT, &root).unwrap();
    clouds.azure_with(&with_token("brought-azure")).wrap("main", &CONTEXT, &root).unwrap();
    assert_eq!(clouds.calls(), ["encrypt", "wrapkey"]);
    // That of the other service, too, is refused there and not replaced.
    denied(clouds.google_with(&with_token("brought-azure")).wrap("main", &CONTEXT, &root));
    denied(clouds.azure_with(&with_token("brought-google")).wrap("main", &CONTEXT, &root));
    assert_eq!(clouds.calls(), ["encrypt", "wrapkey"]);
}

#[test]
fn refused_and_missing_credentials_are_told_apart() {
    let clouds = Clouds::start();
    let root = rng::root_key().unwrap();
    let google = || refused(clouds.google().wrap("main", &CONTEXT, &root));
    let azure = || refused(clouds.azure().wrap("main", &CONTEXT, &root));
    // Nothing listens on port 1.
    set("GCE_METADATA_HOST", "127.0.0.1:1");
    assert!(
        matches!(google(), KmsError::Unreachable(text) if text.contains("GOOGLE_APPLICATION_CREDENTIALS"))
    );
    set("GCE_METADATA_HOST", "host/canary");
    assert!(matches!(google(), KmsError::Setting(_)));
    set("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1");
    assert!(matches!(azure(), KmsError::Unreachable(text) if text.contains("managed identity")));
    for bad in ["http://10.0.0.1", "canary", "http://127.0.0.1/?canary"] {
        set("AZURE_POD_IDENTITY_AUTHORITY_HOST", bad);
        assert_eq!(azure().class(), Class::Setting, "{bad}");
    }
    set("IDENTITY_ENDPOINT", format!("{}/msi/token", clouds.url()));
    assert!(matches!(azure(), KmsError::Setting(text) if text.contains("IDENTITY_HEADER")));

    clouds.with_secret();
    set("AZURE_CLIENT_SECRET", "wrong");
    assert!(matches!(azure(), KmsError::Denied(text) if text.contains("no token")));
    set("AZURE_CLIENT_SECRET_FILE", clouds.file("missing"));
    assert!(matches!(azure(), KmsError::File { .. }));
    set("AZURE_CLIENT_SECRET_FILE", clouds.put("secret", "s~cr&t+1"));
    set("AZURE_TENANT_ID", "../canary");
    assert!(matches!(azure(), KmsError::Setting(text) if text.contains("AZURE_TENANT_ID")));
    set("AZURE_TENANT_ID", "tenant-1");
    set("AZURE_AUTHORITY_HOST", "http://10.0.0.1");
    assert_eq!(azure().class(), Class::Setting);

    let account: Value =
        serde_json::from_str(&std::fs::read_to_string(clouds.file("account.json")).unwrap()).unwrap();
    let stranger = Clouds::start();
    let foreign: Value =
        serde_json::from_str(&std::fs::read_to_string(stranger.file("account.json")).unwrap()).unwrap();
    let with = |name: &str, value: &Value| {
        let mut changed = account.clone();
        changed[name] = value.clone();
        set("GOOGLE_APPLICATION_CREDENTIALS", clouds.put("changed.json", &changed.to_string()));
        google()
    };
    assert!(matches!(with("private_key", &foreign["private_key"]), KmsError::Denied(_)));
    for (name, value) in [
        ("private_key", json!("canary")),
        ("private_key", json!(null)),
        ("type", json!("authorized_user")),
        ("client_email", json!(7)),
        ("token_uri", json!("canary")),
    ] {
        assert!(matches!(with(name, &value), KmsError::Local(_)), "{name}");
    }
    assert_eq!(with("token_uri", &json!("http://10.0.0.1/token")).class(), Class::Setting);
    set("GOOGLE_APPLICATION_CREDENTIALS", clouds.file("missing"));
    assert!(matches!(google(), KmsError::File { .. }));
    assert!(
        clouds.calls().iter().all(|call| call == "login" || call == "account"),
        "no request with no token"
    );

    // A source of tokens that fails for a while says nothing about the KMS, and is asked again.
    clouds.with_account();
    clouds.fault("account", json!({ "status": 503 }), 2);
    clouds.google().wrap("main", &CONTEXT, &root).unwrap();
    clouds.fault("account", json!({ "status": 503 }), 9);
    assert!(matches!(google(), KmsError::Unreachable(text) if text.contains("tokens")));
    for garbage in
        ["", "{}", r#"{"access_token":"two words","expires_in":9}"#, r#"{"access_token":"canary"}"#]
    {
        clouds.calls();
        clouds.fault("account", json!({ "status": 200, "body": garbage }), 9);
        assert!(matches!(google(), KmsError::Response(_)), "{garbage}");
    }
}

#[test]
fn google_checksums_are_compared_and_a_mismatch_is_tried_again() {
    let clouds = Clouds::start();
    clouds.with_account();
    let kms = clouds.google();
    let root = rng::root_key().unwrap();
    let wrapped = kms.wrap("main", &CONTEXT, &root).unwrap();
    clouds.calls();
    for kind in ["crc", "no crc", "unverified plaintext", "unverified data"] {
        clouds.fault("encrypt", kind, 2);
        kms.wrap("main", &CONTEXT, &root).unwrap();
        assert_eq!(clouds.calls(), ["encrypt"; 3], "{kind}");
        clouds.fault("encrypt", kind, 9);
        let error = refused(kms.wrap("main", &CONTEXT, &root));
        assert!(matches!(error, KmsError::Response(text) if text.contains("checksums")), "{kind}");
        assert_eq!(clouds.calls(), ["encrypt"; 3], "{kind}");
    }
    for kind in ["crc", "no crc"] {
        clouds.fault("decrypt", kind, 2);
        assert_eq!(kms.unwrap("main", &CONTEXT, &wrapped).unwrap().expose(), root.expose());
        clouds.calls();
        clouds.fault("decrypt", kind, 9);
        let error = refused(kms.unwrap("main", &CONTEXT, &wrapped));
        assert!(matches!(error, KmsError::Response(text) if text.contains("checksums")), "{kind}");
        assert_eq!(clouds.calls(), ["decrypt"; 3], "{kind}");
    }
}

/// Faults that make what came back no answer of the service, at the first attempt.
fn answers_are_checked(clouds: &Clouds, kms: &dyn Kms, [wrap, unwrap]: [&str; 2], kinds: &[&str]) {
    let root = rng::root_key().unwrap();
    let wrapped = kms.wrap("main", &CONTEXT, &root).unwrap();
    clouds.calls();
    for kind in kinds {
        clouds.fault(wrap, *kind, 9);
        assert!(matches!(refused(kms.wrap("main", &CONTEXT, &root)), KmsError::Response(_)), "{kind}");
        assert_eq!(clouds.calls(), [wrap], "{kind}");
    }
    clouds.fault(unwrap, "short", 9);
    assert!(matches!(refused(kms.unwrap("main", &CONTEXT, &wrapped)), KmsError::Response(_)));
    assert_eq!(clouds.calls(), [unwrap]);
    for (status, body) in
        [(200, ""), (200, "[]"), (200, "null"), (404, "<html>"), (400, "{}"), (302, ""), (204, "")]
    {
        clouds.fault(unwrap, json!({ "status": status, "body": body }), 9);
        let error = refused(kms.unwrap("main", &CONTEXT, &wrapped));
        assert!(matches!(error, KmsError::Response(_)), "{status} {body} {error}");
        assert_eq!(clouds.calls(), [unwrap], "{status} {body}");
    }
    for status in [429, 500, 503] {
        clouds.fault(unwrap, json!({ "status": status }), 2);
        assert_eq!(kms.unwrap("main", &CONTEXT, &wrapped).unwrap().expose(), root.expose());
        assert_eq!(clouds.calls(), [unwrap; 3], "{status}");
        clouds.fault(unwrap, json!({ "status": status }), 9);
        let error = refused(kms.unwrap("main", &CONTEXT, &wrapped));
        assert!(matches!(error, KmsError::Unreachable(_)), "{status} {error}");
        assert_eq!(clouds.calls(), [unwrap; 3], "{status}");
    }
}

#[test]
fn google_answers_are_checked() {
    let clouds = Clouds::start();
    clouds.with_account();
    answers_are_checked(&clouds, &*clouds.google(), ["encrypt", "decrypt"], &["other key", "long"]);
}

#[test]
fn azure_answers_are_checked() {
    let clouds = Clouds::start();
    clouds.with_secret();
    let kinds = ["other key", "no version", "bad version", "long", "padded"];
    answers_are_checked(&clouds, &*clouds.azure(), ["wrapkey", "unwrapkey"], &kinds);
}

/// Bodies of refusals, and a word of what each is told as.
fn refusals_are_final(clouds: &Clouds, kms: &dyn Kms, operation: &str, refusals: &[(u16, Value, &str)]) {
    let wrapped = kms.wrap("main", &CONTEXT, &rng::root_key().unwrap()).unwrap();
    clouds.calls();
    for (status, body, word) in refusals {
        clouds.fault(operation, json!({ "status": status, "body": body }), 9);
        let text = denied(kms.unwrap("main", &CONTEXT, &wrapped));
        assert!(text.contains(word), "{body}: {text}");
        assert_eq!(clouds.calls(), [operation], "{body}");
    }
}

#[test]
fn google_refusals_are_final() {
    let clouds = Clouds::start();
    clouds.with_account();
    let body = |status: &str| json!({ "error": { "status": status, "message": "canary-7291" } });
    let refusals = [
        (400, body("FAILED_PRECONDITION"), "disabled or destroyed"),
        (400, body("INVALID_ARGUMENT"), "wrong KMS key or context"),
        (403, body("PERMISSION_DENIED"), "may not use the key"),
        (404, body("NOT_FOUND"), "no such key"),
        (400, body("canary-7291"), "another reason"),
    ];
    refusals_are_final(&clouds, &*clouds.google(), "decrypt", &refusals);
}

#[test]
fn azure_refusals_are_final() {
    let clouds = Clouds::start();
    clouds.with_secret();
    let body = |code: &str, inner: &str| json!({ "error": { "code": code, "message": "canary-7291", "innererror": { "code": inner } } });
    let refusals = [
        (403, body("Forbidden", "KeyDisabled"), "that version of it is disabled"),
        (403, body("Forbidden", "ForbiddenByFirewall"), "firewall"),
        (403, body("Forbidden", "ForbiddenByRbac"), "may not use the key"),
        (403, json!({ "error": { "code": "Forbidden" } }), "may not use the key"),
        (404, body("KeyNotFound", ""), "no such key"),
        (400, body("BadParameter", ""), "wrong KMS key or context"),
        (409, body("canary-7291", ""), "another reason"),
    ];
    refusals_are_final(&clouds, &*clouds.azure(), "unwrapkey", &refusals);
}

/// A stand-in that accepts all would prove nothing.
#[test]
fn the_stand_in_notices_malformed_requests() {
    let clouds = Clouds::start();
    let ring = "/v1/projects/p/locations/l/keyRings/r/cryptoKeys/main";
    let google = json!({ "plaintext": "AAAA", "plaintextCrc32c": 1 }).to_string();
    let azure = json!({ "alg": "RSA-OAEP", "value": "AAAA" }).to_string();
    for (path, token, body) in [
        (format!("{ring}:encrypt"), "brought-google", &google),
        (format!("{ring}:encrypt"), "", &google),
        ("/keys/main/wrapkey?api-version=7.4".to_owned(), "brought-azure", &azure),
        ("/keys/main/wrapkey?api-version=7.5".to_owned(), "brought-azure", &azure),
        ("/keys/main//wrapkey?api-version=7.4".to_owned(), "brought-azure", &azure),
    ] {
        let request =
            ureq::post(format!("{}{path}", clouds.url())).header("content-type", "application/json");
        let answer = request.header("authorization", format!("Bearer {token}")).send(body.as_str());
        assert!(answer.is_err(), "{path}");
        let report = clouds.control(json!({ "do": "report" }));
        assert_eq!(report["wrong"].as_array().unwrap().len(), 1, "{path} {token}");
    }
}
