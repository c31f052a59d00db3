//! `file:///dir`: keys in files, for development and demos. Whoever can read the directory can read the data.
//!
//! Key `NAME` is `<dir>/NAME.key`, one line `v<N>:<base64 of 32 bytes>` per version, ascending. A wrapped key is
//! `1 | version u32 | nonce 24 | ciphertext 32 | tag 16`, big-endian, XAES-256-GCM.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::error::FOREIGN;
use super::files::read_bounded;
use super::text::{check_name, key_from_text, key_text};
use super::{Kms, KmsError};
use crate::core::aead::{NONCE_BYTES, TAG_BYTES, Xaes256Gcm};
use crate::core::bytes::joined;
use crate::core::rng;
use crate::core::secret::RootKey;
use crate::keys::context::WrapContext;

/// Longest wait for another writer of the key directory.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(10);
const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 5;
const KEY_BYTES: usize = 32;
const WRAPPED_BYTES: usize = HEADER_BYTES + NONCE_BYTES + KEY_BYTES + TAG_BYTES;
const FILE_LIMIT: usize = 64 * 1024;
const AAD_LABEL: &[u8] = b"pgseal/v1/kms/file";

const NOT_A_KEY_FILE: KmsError =
    KmsError::Local("a key file is not lines of v<N>:<base64 of 32 bytes>, ascending");

/// A directory of key files.
pub struct FileKms {
    directory: PathBuf,
}

/// The versions of one key, ascending, never empty.
struct Versions(Vec<(u32, RootKey)>);

impl FileKms {
    /// `rest` is the endpoint after `file://`.
    pub fn open(rest: &str) -> Result<Self, KmsError> {
        if !rest.starts_with('/') || rest.starts_with("//") {
            return Err(KmsError::Endpoint(
                "a file endpoint is file:/// and an absolute directory, without a host",
            ));
        }
        if rest.bytes().any(|byte| byte.is_ascii_control() || matches!(byte, b'%' | b'?' | b'#')) {
            return Err(KmsError::Endpoint(
                "a directory here has no control characters and none of %, ? and #",
            ));
        }
        Ok(FileKms { directory: rest.into() })
    }

    /// Adds a version to `key` and returns its number. Waits for nobody: where another process is at it, an error.
    pub fn rotate(&self, key: &str) -> Result<u32, KmsError> {
        let path = self.path(key)?;
        let _lock = self.lock()?;
        let mut versions = load(&path)?;
        let newest = versions.newest()?.0;
        let next = newest.checked_add(1).ok_or(KmsError::Local("the versions of a key file are used up"))?;
        versions.0.push((next, fresh_key()?));
        self.replace(&path, &versions)?;
        Ok(next)
    }

    fn path(&self, key: &str) -> Result<PathBuf, KmsError> {
        check_name(key)?;
        Ok(self.directory.join(format!("{key}.key")))
    }

    /// Keeps two writers from losing each other's version, which would lose data. A writer needs a moment.
    fn lock(&self) -> Result<File, KmsError> {
        let directory = File::open(&self.directory).map_err(|error| {
            KmsError::Local("the key directory cannot be opened").at(&self.directory, Some(error.kind()))
        })?;
        let end = Instant::now() + LOCK_WAIT;
        while directory.try_lock().is_err() {
            if Instant::now() >= end {
                let busy = KmsError::Local("another process is changing the key directory");
                return Err(busy.at(&self.directory, None));
            }
            std::thread::sleep(LOCK_PAUSE);
        }
        Ok(directory)
    }

    /// Puts the whole file in place at once. Needs the lock.
    fn replace(&self, path: &Path, versions: &Versions) -> Result<(), KmsError> {
        let text = versions.text()?;
        let failed = |error: std::io::Error| {
            KmsError::Local("a key file could not be written in").at(&self.directory, Some(error.kind()))
        };
        let draft = path.with_extension("key.new");
        // A draft left by a crash was never in use.
        let _ = std::fs::remove_file(&draft);
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        std::fs::rename(&draft, path).map_err(failed)?;
        File::open(&self.directory).and_then(|directory| directory.sync_all()).map_err(failed)
    }

    fn create_directory(&self) -> Result<(), KmsError> {
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let above = KmsError::Local(
                    "the key directory could not be created, for the one above it is missing",
                );
                Err(above.at(&self.directory, None))
            }
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                let failed = KmsError::Local("the key directory could not be created");
                Err(failed.at(&self.directory, Some(error.kind())))
            }
            _ => Ok(()),
        }
    }
}

impl Kms for FileKms {
    /// Makes the directory (0700, its parent must exist) and the key file (0600) where they are missing.
    fn ensure_key(&self, key: &str) -> Result<(), KmsError> {
        let path = self.path(key)?;
        if path.exists() {
            return load(&path).map(|_| ());
        }
        self.create_directory()?;
        let _lock = self.lock()?;
        if std::fs::symlink_metadata(&path).is_ok() {
            return load(&path).map(|_| ());
        }
        self.replace(&path, &Versions(vec![(1, fresh_key()?)]))
    }

    fn wrap(&self, key: &str, context: &WrapContext, root: &RootKey) -> Result<Vec<u8>, KmsError> {
        let versions = load(&self.path(key)?)?;
        let (version, secret) = versions.newest()?;
        seal(*version, secret, context, root)
    }

    fn unwrap(&self, key: &str, context: &WrapContext, wrapped: &[u8]) -> Result<RootKey, KmsError> {
        let versions = load(&self.path(key)?)?;
        unseal(&versions, context, wrapped)
    }

    fn rewrap(&self, key: &str, context: &WrapContext, wrapped: &[u8]) -> Result<Vec<u8>, KmsError> {
        let versions = load(&self.path(key)?)?;
        let root = unseal(&versions, context, wrapped)?;
        let (version, secret) = versions.newest()?;
        seal(*version, secret, context, &root)
    }
}

impl Versions {
    fn parse(text: &str) -> Result<Self, KmsError> {
        let parsed: Option<Vec<_>> = text.lines().map(parse_line).collect();
        let versions = parsed.ok_or(NOT_A_KEY_FILE)?;
        let ascending = versions.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if versions.is_empty() || !ascending {
            return Err(NOT_A_KEY_FILE);
        }
        Ok(Versions(versions))
    }

    fn text(&self) -> Result<Zeroizing<String>, KmsError> {
        // Room for every line, so that growing leaves no copy behind.
        let mut text = Zeroizing::new(String::with_capacity(self.0.len() * 64));
        for (version, secret) in &self.0 {
            text.push_str(&format!("v{version}:"));
            text.push_str(&key_text(secret)?);
            text.push('\n');
        }
        Ok(text)
    }

    fn newest(&self) -> Result<&(u32, RootKey), KmsError> {
        self.0.last().ok_or(NOT_A_KEY_FILE)
    }

    fn get(&self, version: u32) -> Option<&RootKey> {
        self.0.iter().find(|(number, _)| *number == version).map(|(_, secret)| secret)
    }
}

fn parse_line(line: &str) -> Option<(u32, RootKey)> {
    let (number, secret) = line.strip_prefix('v')?.split_once(':')?;
    let version: u32 = number.parse().ok()?;
    let canonical = version > 0 && version.to_string() == number;
    canonical.then_some((version, key_from_text(secret)?))
}

/// Reads a key file that is ours alone and not a link.
fn load(path: &Path) -> Result<Versions, KmsError> {
    read(path).map_err(|error| error.at(path, None))
}

fn read(path: &Path) -> Result<Versions, KmsError> {
    let missing = |error| missing(path, error);
    let looked_at = std::fs::symlink_metadata(path).map_err(missing)?;
    if !looked_at.is_file() {
        return Err(KmsError::Local("a key file is not a regular file"));
    }
    let mut file = File::open(path).map_err(missing)?;
    let opened = file.metadata().map_err(missing)?;
    // Someone put another file there between the two looks.
    if (looked_at.dev(), looked_at.ino()) != (opened.dev(), opened.ino()) {
        return Err(KmsError::Local("a key file changed while it was opened"));
    }
    if opened.mode() & 0o177 != 0 {
        return Err(KmsError::Local("a key file must have mode 0600 or 0400"));
    }
    if opened.uid() != rustix::process::geteuid().as_raw() {
        return Err(KmsError::Local("a key file must belong to the user the server runs as"));
    }
    let bytes = read_bounded(&mut file, FILE_LIMIT).map_err(missing)?.ok_or(NOT_A_KEY_FILE)?;
    Versions::parse(std::str::from_utf8(&bytes).map_err(|_| NOT_A_KEY_FILE)?)
}

/// Taking the file away is how a key is revoked here; a directory that is not there may be an unmounted disk.
fn missing(path: &Path, error: std::io::Error) -> KmsError {
    let directory = path.parent().unwrap_or(path);
    match error.kind() {
        ErrorKind::NotFound if directory.is_dir() => KmsError::Denied("there is no such key file"),
        ErrorKind::NotFound => KmsError::Local("the key directory is missing").at(directory, None),
        reason => KmsError::Local("a key file cannot be read").at(path, Some(reason)),
    }
}

fn fresh_key() -> Result<RootKey, KmsError> {
    rng::root_key().map_err(no_random)
}

fn no_random(_: rng::RandomError) -> KmsError {
    KmsError::Local("the operating system gave no random bytes")
}

fn seal(version: u32, secret: &RootKey, context: &WrapContext, root: &RootKey) -> Result<Vec<u8>, KmsError> {
    let mut header = [FORMAT; HEADER_BYTES];
    header[1..].copy_from_slice(&version.to_be_bytes());
    let nonce = rng::bytes::<NONCE_BYTES>().map_err(no_random)?;
    // Encrypted in place.
    let mut data = Zeroizing::new(*root.expose());
    let sealed = Xaes256Gcm::new(secret).seal(&nonce, &aad(&header, context), data.as_mut_slice());
    let tag = sealed.map_err(|_| KmsError::Local("a key could not be sealed"))?;
    Ok([header.as_slice(), &nonce, data.as_slice(), &tag].concat())
}

fn unseal(versions: &Versions, context: &WrapContext, wrapped: &[u8]) -> Result<RootKey, KmsError> {
    let malformed = KmsError::Response("the wrapped key is not one of a file endpoint");
    if wrapped.len() != WRAPPED_BYTES || wrapped[0] != FORMAT {
        return Err(malformed);
    }
    let parts = || {
        let (header, rest) = wrapped.split_first_chunk::<HEADER_BYTES>()?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>()?;
        let (data, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
        Some((header, nonce, data, tag))
    };
    let (header, nonce, data, tag) = parts().ok_or(malformed)?;
    let version = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
    let secret = versions.get(version).ok_or(KmsError::Denied("that version of the KMS key is gone"))?;
    let mut root = RootKey::zeroed();
    let opened = Xaes256Gcm::new(secret).open(nonce, &aad(header, context), data, tag, root.expose_mut());
    opened.map_err(|_| FOREIGN).map(|()| root)
}

/// Label, header and context, each after its length.
fn aad(header: &[u8; HEADER_BYTES], context: &WrapContext) -> Vec<u8> {
    joined(&[AAD_LABEL, header, &context.bytes()])
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
