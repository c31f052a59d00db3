//! `vault+https://host:port/mount[?namespace=path]`: the Transit engine of HashiCorp Vault and OpenBao.
//!
//! A *derived* Transit key binds a ciphertext to `context`; what is stored is then the server's own text,
//! `vault:vN:<base64>`. A key that is not derived ignores the context. There the context goes into
//! `associated_data`, the stored text has `aad:` before it, and rewrapping decrypts and encrypts, because the
//! server's own rewrap rejects such ciphertexts (hashicorp/vault#29532).

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::address::Address;
use super::body::{JSON, Pairs, json};
use super::error::{FOREIGN, OF_ANOTHER_KMS};
use super::files::read_token;
use super::http::{Answer, Client, Failure, Method, Request, Watch, passing};
use super::text::{check_name, is_segment, key_from_text, key_text, take};
use super::{Kms, KmsError, Settings, Token};
use crate::core::secret::RootKey;
use crate::keys::context::WrapContext;

/// Bytes of the longest stored text; 32 bytes under AES-256-GCM take about 90.
const WRAPPED_LIMIT: usize = 1024;
/// Before a ciphertext of a key that is not derived.
const WITH_DATA: &str = "aad:";
/// Where Kubernetes puts a pod's token.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// How a client proves who it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum VaultAuth {
    /// A token from [`VaultLogin::token_file`], read anew at each call.
    #[default]
    Token,
    /// [`VaultLogin::role`] is the role id, [`VaultLogin::secret_file`] holds the secret id.
    AppRole,
    /// [`VaultLogin::role`] is the role, [`VaultLogin::secret_file`] holds the service account's token.
    Kubernetes,
}

/// Credentials for Vault and OpenBao, by reference.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VaultLogin {
    /// The method.
    pub auth: VaultAuth,
    /// For [`VaultAuth::Token`].
    pub token_file: Option<PathBuf>,
    /// Where the method is mounted; without it `approle` or `kubernetes`.
    pub mount: Option<String>,
    /// The role.
    pub role: Option<String>,
    /// The role's secret; for Kubernetes the pod's own token where it is not given.
    pub secret_file: Option<PathBuf>,
    /// The namespace; an endpoint may name another one.
    pub namespace: Option<String>,
}

/// An engine and how to reach it.
pub struct VaultKms {
    /// `https://host:port/v1/`
    server: String,
    mount: String,
    namespace: Option<String>,
    login: VaultLogin,
    brought: Option<Rc<Token>>,
    lease: RefCell<Option<Lease>>,
    client: Client,
}

/// A token from a log-in.
struct Lease {
    token: Rc<Token>,
    /// At two thirds of its time.
    renew: Option<Instant>,
    renewable: bool,
}

impl Lease {
    fn is_due(&self) -> bool {
        self.renew.is_some_and(|due| Instant::now() >= due)
    }
}

impl VaultKms {
    /// `rest` is the endpoint after `://`.
    pub fn open(tls: bool, rest: &str, settings: &Settings) -> Result<Self, KmsError> {
        let (place, namespace) = match rest.split_once("?namespace=") {
            Some((place, namespace)) => (place, Some(namespace.to_owned())),
            None => (rest, settings.vault.namespace.clone()),
        };
        let (server, mount) = parse_place(tls, place)?;
        if !namespace.as_deref().is_none_or(is_path) {
            return Err(KmsError::Endpoint("its namespace is not names with slashes between them"));
        }
        let login = settings.vault.clone();
        if settings.token.is_none() {
            check_login(&login)?;
        }
        let brought = settings.token.clone();
        Ok(VaultKms {
            server,
            mount,
            namespace,
            login,
            brought,
            lease: RefCell::new(None),
            client: Client::new(settings)?,
        })
    }

    /// One operation of the engine; a token that came from a log-in and is refused is replaced once.
    fn call(&self, watch: Watch, operation: &str, key: &str, fields: Pairs) -> Result<Value, KmsError> {
        check_name(key)?;
        let path = format!("{}/{operation}/{key}", self.mount);
        let held = self.lease.borrow().is_some();
        let outcome = self.post(watch, Some(&*self.token(watch)?), &path, fields, "data");
        if outcome != Err(NO_ACCESS) || !held {
            return outcome;
        }
        self.lease.replace(None);
        self.post(watch, Some(&*self.token(watch)?), &path, fields, "data")
    }

    /// Posts `fields` and returns what the answer has under `wanted`.
    fn post(
        &self,
        watch: Watch,
        token: Option<&Token>,
        path: &str,
        fields: Pairs,
        wanted: &str,
    ) -> Result<Value, KmsError> {
        let url = format!("{}{path}", self.server);
        let body = json(fields)?;
        let mut headers = vec![JSON];
        headers.extend(token.map(|token| ("x-vault-token", token.as_str())));
        headers.extend(self.namespace.as_deref().map(|namespace| ("x-vault-namespace", namespace)));
        let request = Request { method: Method::POST, url: &url, headers: &headers, body: &body };
        self.client.call(watch, &request, |answer| judge(answer, wanted))
    }

    fn token(&self, watch: Watch) -> Result<Rc<Token>, KmsError> {
        if let Some(token) = &self.brought {
            return Ok(token.clone());
        }
        let (method, secret_file) = match self.login.auth {
            VaultAuth::Token => return self.token_from_file(),
            VaultAuth::AppRole => ("approle", None),
            VaultAuth::Kubernetes => ("kubernetes", Some(Path::new(SERVICE_ACCOUNT))),
        };
        if let Some(token) = self.held(watch)? {
            return Ok(token);
        }
        let unusable =
            KmsError::Local("the file with the role's secret cannot be read or does not hold one word");
        let secret_file =
            self.login.secret_file.as_deref().or(secret_file).ok_or_else(|| unusable.clone())?;
        let secret = read_token(secret_file, unusable)?;
        let role = self.login.role.as_deref().unwrap_or_default();
        let fields = match self.login.auth {
            VaultAuth::AppRole => [("role_id", role), ("secret_id", secret.as_str())],
            _ => [("role", role), ("jwt", secret.as_str())],
        };
        let path = format!("auth/{}/login", self.login.mount.as_deref().unwrap_or(method));
        self.keep(self.post(watch, None, &path, &fields, "auth")?)
    }

    fn token_from_file(&self) -> Result<Rc<Token>, KmsError> {
        let unusable = KmsError::Local("the token file cannot be read or does not hold one token");
        let file = self.login.token_file.as_deref().ok_or(NO_TOKEN_FILE)?;
        read_token(file, unusable).map(Rc::new)
    }

    /// The token of an earlier log-in, renewed when two thirds of its time are over; `None` where that fails.
    fn held(&self, watch: Watch) -> Result<Option<Rc<Token>>, KmsError> {
        let Some(lease) = self.lease.take() else { return Ok(None) };
        if !lease.is_due() {
            let token = lease.token.clone();
            self.lease.replace(Some(lease));
            return Ok(Some(token));
        }
        if !lease.renewable {
            return Ok(None);
        }
        match self.post(watch, Some(&lease.token), "auth/token/renew-self", &[], "auth") {
            Ok(auth) => self.keep(auth).map(Some),
            Err(error @ (KmsError::Cancelled | KmsError::TimedOut)) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Keeps the token in an answer's `auth`.
    fn keep(&self, mut auth: Value) -> Result<Rc<Token>, KmsError> {
        let seconds = auth.get("lease_duration").and_then(Value::as_u64).unwrap_or(0);
        let renewable = auth.get("renewable").and_then(Value::as_bool).unwrap_or(false);
        let token = take(&mut auth, "client_token").and_then(|text| Token::parse(&text));
        let token = Rc::new(token.ok_or(KmsError::Response("it has no client token"))?);
        // Zero seconds mean a token that does not expire.
        let renew = (seconds > 0).then(|| Instant::now() + Duration::from_secs(seconds.min(LONG)) * 2 / 3);
        self.lease.replace(Some(Lease { token: token.clone(), renew, renewable }));
        Ok(token)
    }

    /// Whether the key is derived, by operations on it that leave the context out: a derived key refuses those.
    fn is_derived(&self, watch: Watch, key: &str) -> Result<bool, KmsError> {
        let nothing = STANDARD.encode([0; 60]);
        let probe = format!("vault:v1:{nothing}");
        // Decrypting comes first, because encrypting would make a missing key where the token may create one.
        let mut answer = self.call(watch, "decrypt", key, &[("ciphertext", &probe)]);
        if matches!(answer, Err(TOO_OLD | NO_ACCESS)) {
            answer = self.call(watch, "encrypt", key, &[("plaintext", &nothing)]);
        }
        match answer {
            Err(NO_CONTEXT) => Ok(true),
            Ok(_) | Err(FOREIGN) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn encrypt(
        &self,
        watch: Watch,
        key: &str,
        context: &WrapContext,
        root: &RootKey,
    ) -> Result<Vec<u8>, KmsError> {
        let derived = self.is_derived(watch, key)?;
        let plaintext = key_text(root)?;
        let context = STANDARD.encode(context.bytes());
        let binding = if derived { "context" } else { "associated_data" };
        let sealed =
            self.call(watch, "encrypt", key, &[("plaintext", plaintext.as_str()), (binding, &context)])?;
        let text = ciphertext(sealed)?;
        Ok(if derived { text } else { [WITH_DATA.as_bytes(), &text].concat() })
    }

    fn decrypt(
        &self,
        watch: Watch,
        key: &str,
        context: &WrapContext,
        wrapped: &[u8],
    ) -> Result<RootKey, KmsError> {
        let (binding, text) = stored(wrapped)?;
        let context = STANDARD.encode(context.bytes());
        plaintext(self.call(watch, "decrypt", key, &[("ciphertext", text), (binding, &context)])?)
    }
}

impl Kms for VaultKms {
    /// Checks that the key is there and usable. Making it is its administrator's task.
    fn ensure_key(&self, key: &str) -> Result<(), KmsError> {
        self.is_derived(self.client.begin(), key).map(|_| ())
    }

    fn wrap(&self, key: &str, context: &WrapContext, root: &RootKey) -> Result<Vec<u8>, KmsError> {
        self.encrypt(self.client.begin(), key, context, root)
    }

    fn unwrap(&self, key: &str, context: &WrapContext, wrapped: &[u8]) -> Result<RootKey, KmsError> {
        self.decrypt(self.client.begin(), key, context, wrapped)
    }

    fn rewrap(&self, key: &str, context: &WrapContext, wrapped: &[u8]) -> Result<Vec<u8>, KmsError> {
        let watch = self.client.begin();
        let (binding, text) = stored(wrapped)?;
        if binding == "associated_data" {
            let root = self.decrypt(watch, key, context, wrapped)?;
            return self.encrypt(watch, key, context, &root);
        }
        let context = STANDARD.encode(context.bytes());
        ciphertext(self.call(watch, "rewrap", key, &[("ciphertext", text), (binding, &context)])?)
    }
}

/// Seconds of the longest lease that is reckoned with: ten years.
const LONG: u64 = 315_360_000;

const NO_TOKEN_FILE: KmsError =
    KmsError::Setting("Vault needs pgseal.kms_token_file, or another way to log in");
const NO_ACCESS: KmsError = KmsError::Denied("the token is not valid or its policy forbids this");
const TOO_OLD: KmsError = KmsError::Denied("that version of the KMS key is no longer allowed");
const NO_CONTEXT: KmsError = KmsError::Setting("the Transit key is derived and was given no context");

/// What the server says on 400 and 404, from OpenBao 2.7.2 and Vault's source, and what it means.
const REFUSALS: [(&str, KmsError); 9] = [
    ("message authentication failed", FOREIGN),
    ("encryption key not found", KmsError::Denied("there is no such key")),
    ("(too old)", TOO_OLD),
    ("version is too new", KmsError::Denied("the KMS key has no such version; was it made anew?")),
    ("missing 'context'", NO_CONTEXT),
    ("no handler for route", KmsError::Denied("there is no such mount")),
    ("namespace not found", KmsError::Denied("there is no such namespace")),
    ("invalid role or secret ID", KmsError::Denied("the role or its secret is not valid")),
    ("invalid role name", KmsError::Denied("the role is not valid")),
];

/// What the answer has under `wanted`, or what its status means.
fn judge(answer: Answer, wanted: &str) -> Result<Value, Failure> {
    // First and alone: looking for errors would leave a copy of a key behind.
    if answer.status == 200 {
        return found(&answer.body, wanted).map_err(Failure::Final);
    }
    let words = errors(&answer.body);
    let said = |needle: &str| words.as_ref().is_some_and(|words| words.contains(needle));
    if answer.status == 503 && said("is sealed") {
        return Err(Failure::Final(KmsError::Unreachable("it is sealed")));
    }
    if let Some(error) = passing(answer.status, &[412]) {
        return Err(Failure::Transient(error));
    }
    match answer.status {
        300..=399 => Err(Failure::Final(KmsError::Response(
            "it is a redirect, which is not followed; name the active node or its load balancer",
        ))),
        401 | 403 => Err(Failure::Final(NO_ACCESS)),
        400..=499 if words.is_some() => Err(Failure::Final(refusal(said))),
        _ => Err(Failure::Final(KmsError::Response("it does not come from the Transit API"))),
    }
}

fn refusal(said: impl Fn(&str) -> bool) -> KmsError {
    let known = REFUSALS.iter().find(|(words, _)| said(words)).map(|(_, error)| error.clone());
    known.unwrap_or(KmsError::Denied("it refused the request for another reason; its log tells"))
}

/// The server's `errors` in one text, or `None` where the body has no such list.
fn errors(body: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let list = value.get("errors")?.as_array()?;
    Some(list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n"))
}

fn found(body: &[u8], wanted: &str) -> Result<Value, KmsError> {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let found = parsed.and_then(|mut answer| answer.get_mut(wanted).map(Value::take));
    found.filter(Value::is_object).ok_or(KmsError::Response("what it should hold is missing"))
}

fn plaintext(mut data: Value) -> Result<RootKey, KmsError> {
    let text = take(&mut data, "plaintext");
    text.and_then(|text| key_from_text(&text)).ok_or(KmsError::Response("its plaintext is not 32 bytes"))
}

fn ciphertext(mut data: Value) -> Result<Vec<u8>, KmsError> {
    let text = take(&mut data, "ciphertext").filter(|text| is_wrapped(text));
    text.map(|text| text.as_bytes().to_vec())
        .ok_or(KmsError::Response("its ciphertext is not vault:v<N>:<base64>"))
}

/// The server's text in what is stored, and the name of the field that the context goes into.
fn stored(wrapped: &[u8]) -> Result<(&'static str, &str), KmsError> {
    let text = std::str::from_utf8(wrapped).unwrap_or_default();
    let (binding, text) = match text.strip_prefix(WITH_DATA) {
        Some(text) => ("associated_data", text),
        None => ("context", text),
    };
    if !is_wrapped(text) {
        return Err(OF_ANOTHER_KMS);
    }
    Ok((binding, text))
}

fn is_wrapped(text: &str) -> bool {
    let parts = text.strip_prefix("vault:v").and_then(|rest| rest.split_once(':'));
    let Some((version, sealed)) = parts else { return false };
    let numbered = version.parse::<u32>().is_ok_and(|number| number > 0 && number.to_string() == version);
    let encoded = STANDARD.decode(sealed).is_ok_and(|bytes| !bytes.is_empty());
    text.len() <= WRAPPED_LIMIT && numbered && encoded
}

/// A mount that fits into a path, a role that is one, and what the method needs.
fn check_login(login: &VaultLogin) -> Result<(), KmsError> {
    if !login.mount.as_deref().is_none_or(is_path) {
        return Err(KmsError::Setting("pgseal.kms_auth_mount is not names with slashes between them"));
    }
    match login.auth {
        VaultAuth::Token if login.token_file.is_none() => Err(NO_TOKEN_FILE),
        VaultAuth::Token => Ok(()),
        _ if !login.role.as_deref().is_some_and(is_role) => {
            Err(KmsError::Setting("this way to log in needs pgseal.kms_role, without quotes and backslashes"))
        }
        VaultAuth::AppRole if login.secret_file.is_none() => {
            Err(KmsError::Setting("AppRole needs pgseal.kms_secret_file"))
        }
        _ => Ok(()),
    }
}

/// One word of printable ASCII; no service names a role otherwise.
fn is_role(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'))
}

fn is_path(text: &str) -> bool {
    text.split('/').all(is_segment)
}

/// `https://host:port/v1/` and `mount` from `host:port/mount`.
fn parse_place(tls: bool, rest: &str) -> Result<(String, String), KmsError> {
    let (authority, mount) =
        rest.split_once('/').ok_or(KmsError::Endpoint("it has no mount after the host"))?;
    let address = Address::parse(authority)?;
    if address.port.is_none() {
        return Err(KmsError::Endpoint("it has no port after the host"));
    }
    if !is_path(mount) {
        return Err(KmsError::Endpoint(
            "its mount is not names of letters, digits, dots, underscores and hyphens",
        ));
    }
    let plain = KmsError::Endpoint("plain http is for loopback addresses only; use vault+https");
    Ok((address.origin(tls, plain)? + "/v1/", mount.to_owned()))
}

#[cfg(test)]
#[path = "vault_tests.rs"]
mod tests;
