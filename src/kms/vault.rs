//! `vault+https://host:port/mount`: the Transit engine of HashiCorp Vault and OpenBao.
//!
//! The Transit key must be *derived*: only then does the server bind a ciphertext to `context` (it ignores the
//! context of a key that is not), and `associated_data` will not do, because rewrap rejects such ciphertexts
//! (hashicorp/vault#29532). What is stored is the server's own text, `vault:vN:<base64>`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use zeroize::Zeroizing;

use super::http::{Answer, Client, Failure, Post};
use super::{Kms, KmsError, Settings, check_name, is_segment, key_from_text, key_text, read_file};
use crate::core::secret::RootKey;
use crate::keys::context::WrapContext;

/// Bytes of the longest stored text; 32 bytes under AES-256-GCM take about 90.
const WRAPPED_LIMIT: usize = 1024;
const TOKEN_LIMIT: usize = 8 * 1024;

/// An engine and how to reach it.
pub struct VaultKms {
    /// `https://host:port/v1/mount`
    base: String,
    token_file: PathBuf,
    client: Client,
}

impl VaultKms {
    /// `rest` is the endpoint after `://`.
    pub fn open(tls: bool, rest: &str, settings: &Settings) -> Result<Self, KmsError> {
        let base = base_url(tls, rest)?;
        let token_file = settings.token_file.clone().ok_or(KmsError::Setting("Vault needs a token file"))?;
        Ok(VaultKms { base, token_file, client: Client::new(settings)? })
    }

    /// One operation; `fields` hold nothing that JSON would escape.
    fn call(&self, operation: &str, key: &str, fields: &[(&str, &str)]) -> Result<Value, KmsError> {
        check_name(key)?;
        let token = self.token()?;
        let url = format!("{}/{operation}/{key}", self.base);
        let body = json(fields);
        let post = Post { url: &url, credential: ("x-vault-token", token.as_str()), body: body.as_bytes() };
        self.client.call(&post, judge)
    }

    fn token(&self) -> Result<Zeroizing<String>, KmsError> {
        let unusable = KmsError::Local("the token file cannot be read or does not hold one token");
        let bytes = read_file(&self.token_file, TOKEN_LIMIT, unusable)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| unusable)?.trim();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(unusable);
        }
        Ok(Zeroizing::new(text.to_owned()))
    }
}

impl Kms for VaultKms {
    /// Checks that the key exists and is derived, by operations on it that leave the context out: a derived key
    /// refuses those. Making the key is its administrator's task.
    fn ensure_key(&self, key: &str) -> Result<(), KmsError> {
        let nothing = STANDARD.encode([0; 60]);
        let probe = format!("vault:v1:{nothing}");
        // Decrypting comes first, because encrypting would make a missing key.
        let answer = self.call("decrypt", key, &[("ciphertext", &probe)]);
        if answer != Err(TOO_OLD) {
            return derived(answer);
        }
        derived(self.call("encrypt", key, &[("plaintext", &nothing)]))
    }

    fn wrap(&self, key: &str, context: &WrapContext, root: &RootKey) -> Result<Vec<u8>, KmsError> {
        let plaintext = key_text(root)?;
        let context = STANDARD.encode(context.bytes());
        let fields = [("plaintext", plaintext.as_str()), ("context", &context)];
        ciphertext(self.call("encrypt", key, &fields)?)
    }

    fn unwrap(&self, key: &str, context: &WrapContext, wrapped: &[u8]) -> Result<RootKey, KmsError> {
        let context = STANDARD.encode(context.bytes());
        let fields = [("ciphertext", stored(wrapped)?), ("context", &context)];
        plaintext(self.call("decrypt", key, &fields)?)
    }

    fn rewrap(&self, key: &str, context: &WrapContext, wrapped: &[u8]) -> Result<Vec<u8>, KmsError> {
        let context = STANDARD.encode(context.bytes());
        let fields = [("ciphertext", stored(wrapped)?), ("context", &context)];
        ciphertext(self.call("rewrap", key, &fields)?)
    }
}

const TOO_OLD: KmsError = KmsError::Denied("that version of the KMS key is no longer allowed");
const NO_CONTEXT: KmsError = KmsError::Setting("the Transit key is derived and was given no context");
const NOT_DERIVED: KmsError = KmsError::Setting("the Transit key is not derived; make it with derived=true");
const FOREIGN: KmsError = KmsError::Denied("wrong KMS key or context");

/// What the server says on 400 and 404, from OpenBao 2.7.2 and Vault's source, and what it means.
const REFUSALS: [(&str, KmsError); 7] = [
    ("message authentication failed", FOREIGN),
    ("encryption key not found", KmsError::Denied("there is no such key")),
    ("(too old)", TOO_OLD),
    ("version is too new", KmsError::Denied("the KMS key has no such version; was it made anew?")),
    ("missing 'context'", NO_CONTEXT),
    ("no handler for route", KmsError::Denied("there is no such mount")),
    ("namespace not found", KmsError::Denied("there is no such namespace")),
];

fn derived(probed: Result<Value, KmsError>) -> Result<(), KmsError> {
    match probed {
        Err(NO_CONTEXT) => Ok(()),
        Ok(_) | Err(FOREIGN) => Err(NOT_DERIVED),
        Err(error) => Err(error),
    }
}

/// The answer's `data`, or what its status means.
fn judge(answer: Answer) -> Result<Value, Failure> {
    // First and alone: looking for errors would leave a copy of a key behind.
    if answer.status == 200 {
        return data(&answer.body).map_err(Failure::Final);
    }
    let words = errors(&answer.body);
    let said = |needle: &str| words.as_ref().is_some_and(|words| words.contains(needle));
    match answer.status {
        300..=399 => Err(Failure::Final(KmsError::Response(
            "it is a redirect, which is not followed; name the active node or its load balancer",
        ))),
        401 | 403 => {
            Err(Failure::Final(KmsError::Denied("the token is not valid or its policy forbids this")))
        }
        503 if said("is sealed") => Err(Failure::Final(KmsError::Unreachable("it is sealed"))),
        408 | 412 | 425 | 429 => Err(Failure::Transient(KmsError::Unreachable("it asks to come back later"))),
        500..=599 => Err(Failure::Transient(KmsError::Unreachable("it reports an internal error"))),
        400..=499 if words.is_some() => Err(Failure::Final(refusal(said))),
        _ => Err(Failure::Final(KmsError::Response("it does not come from the Transit API"))),
    }
}

fn refusal(said: impl Fn(&str) -> bool) -> KmsError {
    let known = REFUSALS.iter().find(|(words, _)| said(words)).map(|(_, error)| *error);
    known.unwrap_or(KmsError::Denied("it refused the request for another reason; its log tells"))
}

/// The server's `errors` in one text, or `None` where the body has no such list.
fn errors(body: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let list = value.get("errors")?.as_array()?;
    Some(list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n"))
}

fn data(body: &[u8]) -> Result<Value, KmsError> {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let data = parsed.and_then(|mut answer| answer.get_mut("data").map(Value::take));
    data.ok_or(KmsError::Response("it has no data"))
}

/// Takes a string out of `data`, so that it is wiped.
fn take(mut data: Value, name: &str) -> Option<Zeroizing<String>> {
    match data.get_mut(name).map(Value::take) {
        Some(Value::String(text)) => Some(Zeroizing::new(text)),
        _ => None,
    }
}

fn plaintext(data: Value) -> Result<RootKey, KmsError> {
    let text = take(data, "plaintext");
    text.and_then(|text| key_from_text(&text)).ok_or(KmsError::Response("its plaintext is not 32 bytes"))
}

fn ciphertext(data: Value) -> Result<Vec<u8>, KmsError> {
    let text = take(data, "ciphertext").filter(|text| is_wrapped(text));
    text.map(|text| text.as_bytes().to_vec())
        .ok_or(KmsError::Response("its ciphertext is not vault:v<N>:<base64>"))
}

fn stored(wrapped: &[u8]) -> Result<&str, KmsError> {
    let text = std::str::from_utf8(wrapped).ok().filter(|text| is_wrapped(text));
    text.ok_or(KmsError::Response("the stored key is not vault:v<N>:<base64>"))
}

fn is_wrapped(text: &str) -> bool {
    let parts = text.strip_prefix("vault:v").and_then(|rest| rest.split_once(':'));
    let Some((version, sealed)) = parts else { return false };
    let numbered = version.parse::<u32>().is_ok_and(|number| number > 0 && number.to_string() == version);
    let encoded = STANDARD.decode(sealed).is_ok_and(|bytes| !bytes.is_empty());
    text.len() <= WRAPPED_LIMIT && numbered && encoded
}

/// An object of plain strings; with room for all, so that growing leaves no copy behind.
fn json(fields: &[(&str, &str)]) -> Zeroizing<String> {
    let room: usize = fields.iter().map(|(name, value)| name.len() + value.len() + 6).sum();
    let mut text = Zeroizing::new(String::with_capacity(room + 2));
    for (name, value) in fields {
        let before = if text.is_empty() { "{\"" } else { ",\"" };
        for part in [before, name, "\":\"", value, "\""] {
            text.push_str(part);
        }
    }
    text.push('}');
    text
}

/// `https://host:port/v1/mount` from `host:port/mount`.
fn base_url(tls: bool, rest: &str) -> Result<String, KmsError> {
    let (authority, mount) =
        rest.split_once('/').ok_or(KmsError::Endpoint("it has no mount after the host"))?;
    if authority.contains('@') {
        return Err(KmsError::Endpoint("it must not hold credentials"));
    }
    let (host, port) =
        authority.rsplit_once(':').ok_or(KmsError::Endpoint("it has no port after the host"))?;
    if !port.parse::<u16>().is_ok_and(|number| number > 0 && number.to_string() == port) {
        return Err(KmsError::Endpoint("its port is not a number from 1 to 65535"));
    }
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let named = !host.contains("..") && is_segment(host) && !host.contains('_');
    if !named && address.is_none_or(|text| text.parse::<Ipv6Addr>().is_err()) {
        return Err(KmsError::Endpoint(
            "its host is not a name, an IPv4 address or an IPv6 address in brackets",
        ));
    }
    if !mount.split('/').all(is_segment) {
        return Err(KmsError::Endpoint(
            "its mount is not names of letters, digits, dots, underscores and hyphens",
        ));
    }
    if !tls && !is_loopback(address.unwrap_or(host)) {
        return Err(KmsError::Endpoint("plain http is for loopback addresses only; use vault+https"));
    }
    let scheme = if tls { "https" } else { "http" };
    Ok(format!("{scheme}://{authority}/v1/{mount}"))
}

fn is_loopback(host: &str) -> bool {
    let v4 = host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback());
    let v6 = host.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback());
    v4 || v6 || host == "localhost"
}

#[cfg(test)]
#[path = "vault_tests.rs"]
mod tests;
