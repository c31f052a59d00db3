use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::keys::context::Purpose;

const CONTEXT: WrapContext =
    WrapContext { keyring: *b"0123456789abcdef", purpose: Purpose::Data, version: 1 };

/// A directory of its own that goes when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> (Self, FileKms) {
        let unique = rng::bytes::<8>().unwrap().map(|byte| format!("{byte:02x}")).concat();
        let path = std::env::temp_dir().join(format!("pgseal-file-kms-{unique}"));
        let kms = FileKms::open(path.to_str().unwrap()).unwrap();
        (Directory(path), kms)
    }

    fn put(&self, key: &str, text: &str) {
        let path = self.0.join(format!("{key}.key"));
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    }

    fn text(&self, key: &str) -> String {
        std::fs::read_to_string(self.0.join(format!("{key}.key"))).unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn root() -> RootKey {
    rng::root_key().unwrap()
}

#[test]
fn endpoints_are_absolute_and_without_a_host() {
    for bad in ["", "dir", "localhost/dir", "//host/dir", "/a?b", "/a#b", "/a%20b", "/a\nb"] {
        assert!(matches!(FileKms::open(bad), Err(KmsError::Endpoint(_))), "{bad:?}");
    }
    assert!(FileKms::open("/var/lib/pg seal").is_ok());
}

#[test]
fn a_key_comes_back_and_only_in_its_context() {
    let (_directory, kms) = Directory::new();
    kms.ensure_key("main").unwrap();
    let root = root();
    let wrapped = kms.wrap("main", &CONTEXT, &root).unwrap();
    assert_eq!(wrapped.len(), WRAPPED_BYTES);
    assert_eq!(kms.unwrap("main", &CONTEXT, &wrapped).unwrap().expose(), root.expose());
    assert_ne!(kms.wrap("main", &CONTEXT, &root).unwrap(), wrapped);
    let others = [
        WrapContext { purpose: Purpose::Index, ..CONTEXT },
        WrapContext { version: 2, ..CONTEXT },
        WrapContext { keyring: [0; 16], ..CONTEXT },
    ];
    for other in others {
        assert_eq!(kms.unwrap("main", &other, &wrapped).err(), Some(FOREIGN));
    }
    kms.ensure_key("other").unwrap();
    assert_eq!(kms.unwrap("other", &CONTEXT, &wrapped).err(), Some(FOREIGN));
}

#[test]
fn every_changed_byte_and_length_is_refused() {
    let (_directory, kms) = Directory::new();
    kms.ensure_key("main").unwrap();
    let wrapped = kms.wrap("main", &CONTEXT, &root()).unwrap();
    for position in 0..wrapped.len() {
        let mut changed = wrapped.clone();
        changed[position] ^= 1;
        assert!(kms.unwrap("main", &CONTEXT, &changed).is_err(), "byte {position}");
        assert!(kms.unwrap("main", &CONTEXT, &wrapped[..position]).is_err(), "length {position}");
    }
    assert!(kms.unwrap("main", &CONTEXT, &[wrapped, vec![0]].concat()).is_err());
}

#[test]
fn rotation_keeps_old_versions_and_rewrap_leaves_them() {
    let (directory, kms) = Directory::new();
    kms.ensure_key("main").unwrap();
    let root = root();
    let old = kms.wrap("main", &CONTEXT, &root).unwrap();
    assert_eq!(kms.rotate("main"), Ok(2));
    let new = kms.rewrap("main", &CONTEXT, &old).unwrap();
    assert_eq!((&old[..5], &new[..5]), (&[1, 0, 0, 0, 1][..], &[1, 0, 0, 0, 2][..]));
    for wrapped in [&old, &new] {
        assert_eq!(kms.unwrap("main", &CONTEXT, wrapped).unwrap().expose(), root.expose());
    }
    let second = directory.text("main").lines().nth(1).unwrap().to_owned();
    directory.put("main", &second);
    assert!(matches!(kms.unwrap("main", &CONTEXT, &old), Err(KmsError::Denied(_))));
    assert!(kms.unwrap("main", &CONTEXT, &new).is_ok());
}

#[test]
fn making_a_key_never_replaces_one() {
    let (directory, kms) = Directory::new();
    kms.ensure_key("main").unwrap();
    let first = directory.text("main");
    kms.ensure_key("main").unwrap();
    assert_eq!(directory.text("main"), first);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&directory.0), mode(&directory.0.join("main.key"))), (0o700, 0o600));
    assert_eq!(std::fs::read_dir(&directory.0).unwrap().count(), 1);
}

#[test]
fn two_writers_do_not_lose_a_version() {
    let (_directory, kms) = Directory::new();
    kms.ensure_key("main").unwrap();
    let held = kms.lock().unwrap();
    assert!(matches!(kms.rotate("main"), Err(KmsError::File { .. })));
    drop(held);
    assert_eq!(kms.rotate("main"), Ok(2));
}

#[test]
fn a_removed_key_is_a_denial_and_a_missing_directory_is_not() {
    let (directory, kms) = Directory::new();
    assert!(matches!(kms.wrap("main", &CONTEXT, &root()), Err(KmsError::File { .. })));
    kms.ensure_key("main").unwrap();
    let wrapped = kms.wrap("main", &CONTEXT, &root()).unwrap();
    std::fs::remove_file(directory.0.join("main.key")).unwrap();
    assert!(matches!(kms.unwrap("main", &CONTEXT, &wrapped), Err(KmsError::Denied(_))));
}

#[test]
fn readable_linked_and_foreign_files_are_refused() {
    let (directory, kms) = Directory::new();
    kms.ensure_key("main").unwrap();
    let path = directory.0.join("main.key");
    for mode in [0o640, 0o604, 0o620, 0o700] {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        assert!(matches!(kms.wrap("main", &CONTEXT, &root()), Err(KmsError::File { .. })), "{mode:o}");
    }
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o400)).unwrap();
    assert!(kms.wrap("main", &CONTEXT, &root()).is_ok());
    symlink(&path, directory.0.join("link.key")).unwrap();
    assert!(matches!(kms.wrap("link", &CONTEXT, &root()), Err(KmsError::File { .. })));
    assert!(matches!(kms.ensure_key("link"), Err(KmsError::File { .. })));
    std::fs::create_dir(directory.0.join("dir.key")).unwrap();
    assert!(matches!(kms.wrap("dir", &CONTEXT, &root()), Err(KmsError::File { .. })));
    // Only root can give a file away; elsewhere this part has nothing to check.
    if std::os::unix::fs::chown(&path, Some(65534), None).is_ok()
        && rustix::process::geteuid().as_raw() != 65534
    {
        assert!(matches!(kms.wrap("main", &CONTEXT, &root()), Err(KmsError::File { .. })));
    }
}

#[test]
fn other_forms_of_a_key_file_are_refused() {
    let (directory, kms) = Directory::new();
    kms.ensure_key("good").unwrap();
    let line = directory.text("good");
    let key = line.trim_end().strip_prefix("v1:").unwrap();
    let bad = [
        String::new(),
        "\n".into(),
        key.into(),
        format!("v0:{key}"),
        format!("v01:{key}"),
        format!("v+1:{key}"),
        format!("v4294967296:{key}"),
        format!("v1:{}", &key[..40]),
        format!("v2:{key}\nv1:{key}\n"),
        format!("v1:{key}\nv1:{key}\n"),
        format!("v1:{key}\n\nv2:{key}\n"),
        format!("v1:{key} \n"),
        (1..2000).map(|version| format!("v{version}:{key}\n")).collect(),
    ];
    for text in bad {
        directory.put("bad", &text);
        let refused = kms.wrap("bad", &CONTEXT, &root()).err().unwrap().to_string();
        // Then it says which file.
        assert!(refused.starts_with(&NOT_A_KEY_FILE.to_string()), "{text:.60?}: {refused}");
    }
    directory.put("bad", line.trim_end());
    assert!(kms.wrap("bad", &CONTEXT, &root()).is_ok());
}
