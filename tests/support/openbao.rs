use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::guard::Guard;
use super::port::free_port;
use super::wait_for;

const ROOT_TOKEN: &str = "root";

/// A real OpenBao server in development mode (everything in memory, unsealed), from the program `PGSEAL_BAO`,
/// with a Transit engine at "transit". Dropping it stops it.
pub struct OpenBao {
    port: u16,
    /// Certificates, where it speaks TLS.
    certificates: Option<tempfile::TempDir>,
    _guard: Guard,
}

impl OpenBao {
    pub fn start() -> OpenBao {
        Self::start_with(None)
    }

    /// The same behind TLS, with an authority of its own.
    pub fn start_with_tls() -> OpenBao {
        Self::start_with(Some(tempfile::tempdir().expect("a directory")))
    }

    fn start_with(certificates: Option<tempfile::TempDir>) -> OpenBao {
        let bao = Self::launch(certificates);
        bao.post("sys/mounts/transit", &json!({ "type": "transit" }));
        bao
    }

    /// Without any engine.
    pub fn bare() -> OpenBao {
        Self::launch(None)
    }

    fn launch(certificates: Option<tempfile::TempDir>) -> OpenBao {
        let program = std::env::var_os("PGSEAL_BAO").expect("PGSEAL_BAO: run make test");
        let port = free_port();
        let server = r#""$1" server -dev -dev-no-store-token "-dev-root-token-id=$2" "-dev-listen-address=$3" $4 $5 &"#;
        let directory =
            certificates.as_ref().map(|place| format!("-dev-tls-cert-dir={}", place.path().display()));
        let tls = if directory.is_some() { "-dev-tls" } else { "" };
        let address = format!("127.0.0.1:{port}");
        let arguments =
            [program, ROOT_TOKEN.into(), address.into(), tls.into(), directory.unwrap_or_default().into()];
        let guard = Guard::new(Command::new("sh"), &format!("{server} cat; kill -9 $!; wait"), &arguments);
        let bao = OpenBao { port, certificates, _guard: guard };

        let unsealed = || TcpStream::connect(("127.0.0.1", port)).is_ok() && bao.get("sys/health").0 == 200;
        wait_for("OpenBao's start", Duration::from_secs(60), unsealed);
        bao
    }

    /// For its command line, `BAO_ADDR`.
    pub fn address(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme(), self.port)
    }

    /// For `pgseal.kms_endpoint` and `create_keyring`.
    pub fn endpoint(&self) -> String {
        format!("vault+{}://127.0.0.1:{}/transit", self.scheme(), self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    fn scheme(&self) -> &'static str {
        if self.certificates.is_some() { "https" } else { "http" }
    }

    /// The authority (PEM) of [`OpenBao::start_with_tls`].
    pub fn authority(&self) -> String {
        let directory = self.certificates.as_ref().expect("TLS").path();
        let files = std::fs::read_dir(directory).expect("certificates").flatten().map(|entry| entry.path());
        let file =
            files.into_iter().find(|path| path.to_string_lossy().ends_with("-ca.pem")).expect("an authority");
        std::fs::read_to_string(file).expect("an authority")
    }

    /// A Transit key whose use takes a `context`, which pgseal wants.
    pub fn create_key(&self, name: &str) {
        self.post(&format!("transit/keys/{name}"), &json!({ "type": "aes256-gcm96", "derived": true }));
    }

    pub fn delete_key(&self, name: &str) {
        self.post(&format!("transit/keys/{name}/config"), &json!({ "deletion_allowed": true }));
        assert_eq!(self.call("DELETE", &format!("transit/keys/{name}"), None).0, 204);
    }

    pub fn rotate_key(&self, name: &str) {
        self.post(&format!("transit/keys/{name}/rotate"), &json!({}));
    }

    /// Below it nothing decrypts any more; lowering it again gives it back.
    pub fn set_min_decryption_version(&self, name: &str, version: u32) {
        self.post(&format!("transit/keys/{name}/config"), &json!({ "min_decryption_version": version }));
    }

    /// A policy that lets the key `name` be used, and nothing else; it is called as the key is.
    pub fn allow(&self, name: &str) {
        self.allow_all(name, &[name]);
    }

    /// A policy that lets these keys be used, and nothing else.
    pub fn allow_all(&self, policy: &str, keys: &[&str]) {
        let rule =
            |key: &str, what| format!("path \"transit/{what}/{key}\" {{ capabilities = [\"update\"] }}");
        let rules: Vec<String> = keys
            .iter()
            .flat_map(|key| ["encrypt", "decrypt", "rewrap"].map(|what| rule(key, what)))
            .collect();
        self.post(&format!("sys/policies/acl/{policy}"), &json!({ "policy": rules.join("\n") }));
    }

    /// Takes away what [`OpenBao::allow`] gave, from every token that had it.
    pub fn deny(&self, name: &str) {
        self.call("DELETE", &format!("sys/policies/acl/{name}"), None);
    }

    /// A new token that may do what the policy `policy` allows.
    pub fn token(&self, policy: &str) -> String {
        let body = json!({ "policies": [policy], "no_parent": true });
        let token = self.post("auth/token/create", &body)["auth"]["client_token"].as_str().map(str::to_owned);
        token.expect("a token")
    }

    /// A new AppRole with the policy `policy`: its role id and a secret id.
    pub fn app_role(&self, policy: &str) -> (String, String) {
        self.post("sys/auth/approle", &json!({ "type": "approle" }));
        self.post("auth/approle/role/app", &json!({ "token_policies": [policy] }));
        let role = self.get("auth/approle/role/app/role-id").1["data"]["role_id"].as_str().map(str::to_owned);
        let secret = self.post("auth/approle/role/app/secret-id", &json!({}));
        (role.expect("a role id"), secret["data"]["secret_id"].as_str().expect("a secret id").to_owned())
    }

    pub fn revoke(&self, token: &str) {
        self.post("auth/token/revoke", &json!({ "token": token }));
    }

    /// From here on every request is answered 503, "Vault is sealed".
    pub fn seal(&self) {
        self.post("sys/seal", &json!({}));
    }

    /// Any other request with the root token; panics unless it succeeds.
    pub fn post(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.call("POST", path, Some(body));
        assert!((200..300).contains(&status), "POST {path}: {status} {answer}");
        answer
    }

    fn get(&self, path: &str) -> (u16, Value) {
        self.call("GET", path, None)
    }

    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}://127.0.0.1:{}/v1/{path}", self.scheme(), self.port))
            .header("X-Vault-Token", ROOT_TOKEN)
            .body(body.map(Value::to_string).unwrap_or_default())
            .expect("a request");
        let tls = ureq::tls::TlsConfig::builder().disable_verification(true).build();
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .timeout_global(Some(Duration::from_secs(10)))
            .proxy(None)
            .build()
            .into();
        match agent.run(request) {
            Ok(mut response) => {
                let text = response.body_mut().read_to_string().unwrap_or_default();
                (response.status().as_u16(), serde_json::from_str(&text).unwrap_or_default())
            }
            Err(error) => (0, json!(error.to_string())),
        }
    }
}
