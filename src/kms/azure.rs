//! `azure-kv://NAME.vault.azure.net[?endpoint=https://host:port]`: Azure Key Vault, with an RSA key.
//!
//! A root key is made here and wrapped there with RSA-OAEP-256, which takes no additional data. So 16 bytes of the
//! SHA-256 of its context are wrapped with it, and compared when it comes back. That keeps one keyring's key from
//! being passed off as another's. It does not prove that this server wrapped it: an RSA key has a public half, and
//! whoever may read that (`keys/get`) and write to the catalog could put a root key of their own there.
//!
//! What is stored: byte 1 (the format), one byte with the length of the key version, the version as in the `kid` of
//! the answer, and the wrapped bytes. Unwrapping asks that version, rewrapping goes on to the newest.
//!
//! Requests and answers are KeyOperationsParameters, KeyOperationResult and KeyVaultError of
//! Azure/azure-rest-api-specs, specification/keyvault/data-plane/Microsoft.KeyVault/stable/7.4, keys.json and
//! common.json; bytes are base64url without padding. A wrapkey without a version in its path takes the newest one.
//!
//! Credentials, the first that is there: a session's own token; a client secret (AZURE_CLIENT_SECRET_FILE or
//! AZURE_CLIENT_SECRET, with AZURE_TENANT_ID and AZURE_CLIENT_ID); a workload identity (AZURE_FEDERATED_TOKEN_FILE with
//! the same two); a managed identity, from IDENTITY_ENDPOINT with IDENTITY_HEADER or from the metadata service.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::address::Url;
use super::body::{FORM, JSON, form, json};
use super::error::{FOREIGN, OF_ANOTHER_KMS};
use super::files::read_token;
use super::http::{Answer, Client, Failure, Method, Request, Watch};
use super::oauth::{Bearer, Fresh, ask, check_source, judge_service};
use super::text::{is_segment, take};
use super::{Cipher, Environment, KmsError, Settings, Token};
use crate::core::secret::RootKey;

/// The first byte of what is stored.
const FORMAT: u8 = 1;
/// Bytes of the longest version; Azure's have 32.
const VERSION_LIMIT: usize = 64;
/// Bytes that the longest RSA key makes, twice.
const WRAPPED_LIMIT: usize = 1024;
const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
/// Characters of base64url for key and tag.
const SECRET_TEXT: usize = 64;
const API: &str = "api-version=7.4";
const METADATA: &str = "http://169.254.169.254";
const METADATA_API: &str = "api-version=2018-02-01";
const IDENTITY_API: &str = "api-version=2019-08-01";
const GRANT: &str = "grant_type=client_credentials";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// What a vault's name ends in, which is also what its tokens are for, and who gives them out.
const CLOUDS: [(&str, &str); 4] = [
    ("vault.azure.net", "https://login.microsoftonline.com"),
    ("vault.azure.cn", "https://login.chinacloudapi.cn"),
    ("vault.usgovcloudapi.net", "https://login.microsoftonline.us"),
    ("vault.microsoftazure.de", "https://login.microsoftonline.de"),
];

const VAULT: KmsError = KmsError::Endpoint(
    "after azure-kv:// stands NAME.vault.azure.net or the same in Azure China, Azure Government or Azure Germany",
);
const OVERRIDE: KmsError = KmsError::Endpoint(
    "an address in place of the vault's own is http:// or https:// and a host, without a path",
);
const BAD_KEY: KmsError =
    KmsError::Setting("the name of a key in Azure Key Vault has 1 to 127 letters, digits and hyphens");
const LOGIN: KmsError =
    KmsError::Setting("logging in to Azure needs AZURE_TENANT_ID and AZURE_CLIENT_ID, each one word");
const AUTHORITY: KmsError = KmsError::Setting("AZURE_AUTHORITY_HOST is not a URL without a path");
const SECRET: KmsError =
    KmsError::Local("the Azure client secret or its file cannot be read or does not hold one word");
const ASSERTION: KmsError =
    KmsError::Local("the file of AZURE_FEDERATED_TOKEN_FILE cannot be read or does not hold one token");
const IDENTITY: KmsError = KmsError::Setting(
    "IDENTITY_ENDPOINT is a URL without a query and goes with IDENTITY_HEADER, which is one word",
);
const METADATA_URL: KmsError = KmsError::Setting("AZURE_POD_IDENTITY_AUTHORITY_HOST is not a URL");
const NO_IDENTITY: KmsError = KmsError::Unreachable(
    "there is no Azure client secret or workload identity, and nothing gives a token for a managed identity",
);

/// A vault and how to reach it.
pub struct AzureKms {
    /// `https://host`
    server: String,
    /// `https://vault.azure.net`
    resource: String,
    authority: &'static str,
    environment: Environment,
    bearer: Bearer,
    client: Client,
}

impl AzureKms {
    /// `rest` is the endpoint after `://`.
    pub fn open(rest: &str, settings: &Settings) -> Result<Self, KmsError> {
        let (vault, given) = match rest.split_once("?endpoint=") {
            Some((vault, given)) => (vault, Some(given)),
            None => (rest, None),
        };
        let (suffix, authority) = cloud_of(vault)?;
        Ok(AzureKms {
            server: given.map_or(Ok(format!("https://{vault}")), |given| Url::origin(given, OVERRIDE))?,
            resource: format!("https://{suffix}"),
            authority,
            environment: settings.environment,
            bearer: Bearer::new(settings.token.clone()),
            client: Client::new(settings)?,
        })
    }

    /// `operation` is such as `NAME/wrapkey`; the result is a KeyOperationResult.
    fn call(&self, watch: Watch, operation: &str, value: &str, bad: KmsError) -> Result<Value, KmsError> {
        let url = format!("{}/keys/{operation}?{API}", self.server);
        let body = json(&[("alg", "RSA-OAEP-256"), ("value", value)])?;
        self.bearer.with(
            || self.fetch(watch),
            |bearer| {
                let headers = [JSON, ("authorization", bearer)];
                let request = Request { method: Method::POST, url: &url, headers: &headers, body: &body };
                self.client.call(watch, &request, |answer| judge(answer, bad.clone()))
            },
        )
    }

    fn fetch(&self, watch: Watch) -> Result<Fresh, KmsError> {
        if let Some(secret) = self.client_secret()? {
            return self.log_in(watch, &[("client_secret", secret.as_str())]);
        }
        if let Some(file) = self.environment.variable("AZURE_FEDERATED_TOKEN_FILE") {
            let assertion = read_token(file.as_str().as_ref(), ASSERTION)?;
            let proof = [("client_assertion_type", ASSERTION_TYPE), ("client_assertion", assertion.as_str())];
            return self.log_in(watch, &proof);
        }
        self.managed_identity(watch)
    }

    fn client_secret(&self) -> Result<Option<Token>, KmsError> {
        if let Some(file) = self.environment.variable("AZURE_CLIENT_SECRET_FILE") {
            return read_token(file.as_str().as_ref(), SECRET).map(Some);
        }
        let secret = self.environment.variable("AZURE_CLIENT_SECRET");
        secret.map(|text| Token::parse(&text).ok_or(SECRET)).transpose()
    }

    /// The client credentials grant of Microsoft Entra ID with a secret or an assertion.
    fn log_in(&self, watch: Watch, proof: &[(&str, &str)]) -> Result<Fresh, KmsError> {
        let tenant =
            self.environment.variable("AZURE_TENANT_ID").filter(|tenant| is_segment(tenant)).ok_or(LOGIN)?;
        let client =
            self.environment.variable("AZURE_CLIENT_ID").filter(|client| is_segment(client)).ok_or(LOGIN)?;
        let given = self.environment.variable("AZURE_AUTHORITY_HOST");
        let authority = given.as_ref().map_or(self.authority, |url| url.trim_end_matches('/'));
        check_source(authority, AUTHORITY)?;
        let scope = format!("{}/.default", self.resource);
        let fields = [&[("client_id", client.as_str()), ("scope", &scope)], proof].concat();
        let body = form(GRANT, &fields);
        let url = format!("{authority}/{}/oauth2/v2.0/token", tenant.as_str());
        let request = Request { method: Method::POST, url: &url, headers: &[FORM], body: body.as_bytes() };
        ask(&self.client, watch, &request)
    }

    fn managed_identity(&self, watch: Watch) -> Result<Fresh, KmsError> {
        let mut fields = vec![("resource", self.resource.as_str())];
        let client = self.environment.variable("AZURE_CLIENT_ID");
        fields.extend(client.as_ref().map(|client| ("client_id", client.as_str())));
        if let Some(url) = self.environment.variable("IDENTITY_ENDPOINT") {
            let proof = self
                .environment
                .variable("IDENTITY_HEADER")
                .and_then(|text| Token::parse(&text))
                .ok_or(IDENTITY)?;
            let headers = [("x-identity-header", proof.as_str())];
            return self.ask_identity(watch, &url, IDENTITY, &form(IDENTITY_API, &fields), &headers);
        }
        let given = self.environment.variable("AZURE_POD_IDENTITY_AUTHORITY_HOST");
        let base = given.as_ref().map_or(METADATA, |url| url.trim_end_matches('/'));
        let url = format!("{base}/metadata/identity/oauth2/token");
        let query = form(METADATA_API, &fields);
        self.ask_identity(watch, &url, METADATA_URL, &query, &[("metadata", "true")])
    }

    fn ask_identity(
        &self,
        watch: Watch,
        url: &str,
        wrong: KmsError,
        query: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Fresh, KmsError> {
        check_source(url, wrong.clone())?;
        if url.contains('?') {
            return Err(wrong);
        }
        let url = format!("{url}?{query}");
        let request = Request { method: Method::GET, url: &url, headers, body: &[] };
        ask(&self.client, watch, &request).map_err(|error| match error {
            KmsError::Unreachable(_) | KmsError::TimedOut => NO_IDENTITY,
            error => error,
        })
    }
}

impl Cipher for AzureKms {
    fn begin(&self) -> Watch {
        self.client.begin()
    }

    fn encrypt(&self, watch: Watch, key: &str, data: &[u8], root: &RootKey) -> Result<Vec<u8>, KmsError> {
        check_key(key)?;
        let value = secret_text(root, data)?;
        let mut result = self.call(watch, &format!("{key}/wrapkey"), &value, NOT_FIT)?;
        let version = result.get("kid").and_then(Value::as_str).and_then(|kid| version_of(kid, key));
        let version =
            version.ok_or(KmsError::Response("its kid is not that of the key asked for"))?.to_owned();
        let bytes = take(&mut result, "value").and_then(|text| URL_SAFE_NO_PAD.decode(text.as_bytes()).ok());
        let bytes = bytes.filter(|bytes| (1..=WRAPPED_LIMIT).contains(&bytes.len()));
        let bytes = bytes.ok_or(KmsError::Response("its value is not 1 to 1024 bytes of base64url"))?;
        Ok(pack(&version, &bytes))
    }

    fn decrypt(&self, watch: Watch, key: &str, data: &[u8], wrapped: &[u8]) -> Result<RootKey, KmsError> {
        check_key(key)?;
        let (version, bytes) = unpack(wrapped).ok_or(OF_ANOTHER_KMS)?;
        let value = URL_SAFE_NO_PAD.encode(bytes);
        let mut result = self.call(watch, &format!("{key}/{version}/unwrapkey"), &value, FOREIGN)?;
        let text = take(&mut result, "value");
        let secret = text.and_then(|text| secret_from_text(&text));
        let secret = secret.ok_or(KmsError::Response("its value is not a key and a tag of 48 bytes"))?;
        let (root, tag) = secret.split_at(KEY_BYTES);
        if !bool::from(tag.ct_eq(&tag_of(data))) {
            return Err(FOREIGN);
        }
        RootKey::from_slice(root).ok_or(FOREIGN)
    }
}

/// What stands for a context beside the key.
fn tag_of(data: &[u8]) -> [u8; TAG_BYTES] {
    let hash: [u8; 32] = Sha256::digest(data).into();
    std::array::from_fn(|at| hash[at])
}

/// Key and tag as base64url.
fn secret_text(root: &RootKey, data: &[u8]) -> Result<Zeroizing<String>, KmsError> {
    let mut secret = Zeroizing::new([0; KEY_BYTES + TAG_BYTES]);
    // The key itself is what the service wraps.
    secret[..KEY_BYTES].copy_from_slice(root.expose());
    secret[KEY_BYTES..].copy_from_slice(&tag_of(data));
    let mut text = Zeroizing::new([0; SECRET_TEXT]);
    let encoded = URL_SAFE_NO_PAD.encode_slice(secret.as_slice(), text.as_mut_slice());
    let text = encoded.ok().and_then(|length| std::str::from_utf8(&text[..length]).ok());
    text.map(|text| Zeroizing::new(text.to_owned())).ok_or(KmsError::Local("a key could not be encoded"))
}

/// `None` unless exactly 48 bytes.
fn secret_from_text(text: &str) -> Option<Zeroizing<[u8; KEY_BYTES + TAG_BYTES]>> {
    let mut secret = Zeroizing::new([0; KEY_BYTES + TAG_BYTES]);
    if text.len() != SECRET_TEXT {
        return None;
    }
    URL_SAFE_NO_PAD.decode_slice(text, secret.as_mut_slice()).ok()?;
    Some(secret)
}

fn pack(version: &str, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(version.len()).unwrap_or_default();
    [&[FORMAT, length], version.as_bytes(), bytes].concat()
}

/// Version and wrapped bytes.
fn unpack(wrapped: &[u8]) -> Option<(&str, &[u8])> {
    let (&[format, length], rest) = wrapped.split_first_chunk()?;
    let (version, bytes) = rest.split_at_checked(usize::from(length))?;
    let version = std::str::from_utf8(version).ok().filter(|version| is_version(version))?;
    let fits = format == FORMAT && (1..=WRAPPED_LIMIT).contains(&bytes.len());
    fits.then_some((version, bytes))
}

/// The version in `https://host/keys/NAME/VERSION`; Azure's names do not tell capitals apart.
fn version_of<'a>(kid: &'a str, key: &str) -> Option<&'a str> {
    let (_, path) = kid.split_once("/keys/")?;
    let (name, version) = path.split_once('/')?;
    (name.eq_ignore_ascii_case(key) && is_version(version)).then_some(version)
}

fn is_version(text: &str) -> bool {
    (1..=VERSION_LIMIT).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn check_key(key: &str) -> Result<(), KmsError> {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if (1..=127).contains(&key.len()) && key.bytes().all(safe) { Ok(()) } else { Err(BAD_KEY) }
}

/// The entry of [`CLOUDS`] for a vault's full name.
fn cloud_of(vault: &str) -> Result<(&'static str, &'static str), KmsError> {
    let (name, domain) = vault.split_once('.').ok_or(VAULT)?;
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let named = (3..=24).contains(&name.len()) && name.bytes().all(safe) && !name.starts_with('-');
    let cloud = CLOUDS.into_iter().find(|(suffix, _)| *suffix == domain);
    cloud.filter(|_| named && !name.ends_with('-')).ok_or(VAULT)
}

const NOT_FIT: KmsError = KmsError::Denied("the KMS key cannot wrap with RSA-OAEP-256");

/// Codes of the service, the inner ones first because they say more, and what they mean.
const REFUSALS: [(&str, KmsError); 4] = [
    ("KeyDisabled", KmsError::Denied("the KMS key or that version of it is disabled")),
    ("ForbiddenByFirewall", KmsError::Denied("the vault's firewall does not let this server in")),
    (
        "Forbidden",
        KmsError::Denied(
            "this server's identity may not use the key, or the key is disabled or out of its time",
        ),
    ),
    ("KeyNotFound", KmsError::Denied("there is no such key or no such version of it")),
];

/// A good answer as JSON, or what its status means; `bad` is what BadParameter means.
fn judge(answer: Answer, bad: KmsError) -> Result<Value, Failure> {
    judge_service(answer, &[], NOT_VAULT, |data| refusal(data, bad))
}

const NOT_VAULT: KmsError = KmsError::Response("it does not come from the Key Vault API");

/// By the codes of a KeyVaultError.
fn refusal(data: &Value, bad: KmsError) -> KmsError {
    let code = |place: &str| data.pointer(place).and_then(Value::as_str);
    let Some(outer) = code("/error/code") else { return NOT_VAULT };
    let inner = code("/error/innererror/code").unwrap_or_default();
    if outer == "BadParameter" {
        return bad;
    }
    let known =
        REFUSALS.iter().find(|(code, _)| *code == inner || *code == outer).map(|(_, error)| error.clone());
    known.unwrap_or(KmsError::Denied("it refused the request for another reason; its log tells"))
}

#[cfg(test)]
#[path = "azure_tests.rs"]
mod tests;
