//! AWS Signature Version 4 of requests to the path `/` without a query; the JSON services know no others.

use hmac::{KeyInit, Mac};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::credentials::Credentials;
use crate::core::kdf::HmacSha256;
use crate::kms::KmsError;

/// What a signature is valid for.
pub(super) struct Scope<'a> {
    pub region: &'a str,
    pub service: &'a str,
    /// As [`stamp`] makes it.
    pub time: &'a str,
}

/// A moment as `x-amz-date` wants it.
pub(super) fn stamp(now: OffsetDateTime) -> String {
    let (hour, minute, second) = now.time().as_hms();
    let (year, month, day) = (now.year(), u8::from(now.month()), now.day());
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// The `authorization` header. `headers` are all signed; among them must be `host` and `x-amz-date`.
pub(super) fn authorization(
    credentials: &Credentials,
    scope: &Scope,
    method: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<String, KmsError> {
    let names = names(headers);
    let signed = names.join(";");
    let request = canonical_request(method, headers, &names, body);
    let day = scope.time.get(..8).unwrap_or_default();
    let place = format!("{day}/{}/{}/aws4_request", scope.region, scope.service);
    let digest = hex(&Sha256::digest(request.as_bytes()));
    let text = format!("AWS4-HMAC-SHA256\n{}\n{place}\n{digest}", scope.time);

    let mut key = mac(Zeroizing::new(["AWS4", credentials.secret.as_str()].concat()).as_bytes(), day)?;
    for part in [scope.region, scope.service, "aws4_request"] {
        key = mac(key.as_slice(), part)?;
    }
    let signature = hex(mac(key.as_slice(), &text)?.as_slice());
    let id = credentials.id.as_str();
    Ok(format!("AWS4-HMAC-SHA256 Credential={id}/{place}, SignedHeaders={signed}, Signature={signature}"))
}

/// The names of `headers` in lower case and order, each once.
fn names(headers: &[(&str, &str)]) -> Vec<String> {
    let mut names: Vec<String> = headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Wiped, because a session token is among the headers.
fn canonical_request(
    method: &str,
    headers: &[(&str, &str)],
    names: &[String],
    body: &[u8],
) -> Zeroizing<String> {
    let signed = names.join(";");
    let room: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    // Room for everything, so that growing leaves no copy behind.
    let mut text = Zeroizing::new(String::with_capacity(room + method.len() + signed.len() + 80));
    for part in [method, "\n/\n\n"] {
        text.push_str(part);
    }
    for name in names {
        text.push_str(name);
        let values = headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        for (index, (_, value)) in values.enumerate() {
            text.push(if index == 0 { ':' } else { ',' });
            push_collapsed(&mut text, value);
        }
        text.push('\n');
    }
    for part in ["\n", &signed, "\n", &hex(&Sha256::digest(body))] {
        text.push_str(part);
    }
    text
}

/// Without white space around, and one space for each run of it.
fn push_collapsed(text: &mut String, value: &str) {
    for (index, word) in value.split_ascii_whitespace().enumerate() {
        if index > 0 {
            text.push(' ');
        }
        text.push_str(word);
    }
}

fn mac(key: &[u8], message: &str) -> Result<Zeroizing<[u8; 32]>, KmsError> {
    let keyed = HmacSha256::new_from_slice(key).map_err(|_| KmsError::Local("the AWS secret is unusable"))?;
    Ok(Zeroizing::new(keyed.chain_update(message).finalize().into_bytes().into()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[path = "sigv4_tests.rs"]
mod tests;
