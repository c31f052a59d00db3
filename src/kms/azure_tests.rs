use std::time::Duration;

use super::*;

fn open(rest: &str) -> Result<AzureKms, KmsError> {
    AzureKms::open(rest, &Settings::new(Duration::from_secs(1), || false))
}

#[test]
fn endpoints_are_a_vault_and_perhaps_an_address() {
    for (vault, resource, authority) in [
        ("my-vault1.vault.azure.net", "https://vault.azure.net", "https://login.microsoftonline.com"),
        ("abc.vault.azure.cn", "https://vault.azure.cn", "https://login.chinacloudapi.cn"),
        (
            "abc.vault.usgovcloudapi.net",
            "https://vault.usgovcloudapi.net",
            "https://login.microsoftonline.us",
        ),
        (
            "abc.vault.microsoftazure.de",
            "https://vault.microsoftazure.de",
            "https://login.microsoftonline.de",
        ),
    ] {
        let kms = open(vault).unwrap();
        assert_eq!(kms.server, format!("https://{vault}"));
        assert_eq!((kms.resource.as_str(), kms.authority), (resource, authority));
    }
    assert_eq!(open("abc.vault.azure.net?endpoint=http://127.0.0.1:1").unwrap().server, "http://127.0.0.1:1");
    let long = format!("{}.vault.azure.net", "a".repeat(25));
    let bad_vaults = [
        "",
        "abc",
        "ab.vault.azure.net",
        long.as_str(),
        "-ab.vault.azure.net",
        "ab-.vault.azure.net",
        "a_b.vault.azure.net",
        "abc.vault.azure.net.example",
        "abc.evil.vault.azure.net",
        "abc.vault.azure.net:443",
        "abc.vault.azure.net/keys/k",
        "canary@abc.vault.azure.net",
        "abc.vault.azure.net?canary=1",
    ];
    for bad in bad_vaults {
        assert_eq!(open(bad).err(), Some(VAULT), "{bad}");
    }
    for given in ["", "kms.example", "http://10.0.0.1:1", "https://a:canary@h", "https://h/keys"] {
        let error = open(&format!("abc.vault.azure.net?endpoint={given}")).err().unwrap();
        assert!(matches!(error, KmsError::Endpoint(text) if !text.contains("canary")), "{given}");
    }
}

#[test]
fn names_of_keys_are_as_the_service_allows() {
    let long = "k".repeat(128);
    for bad in ["", "a.b", "a/b", "a_b", "k\n", "a b", "\u{fc}", &long] {
        assert_eq!(check_key(bad), Err(BAD_KEY), "{bad:?}");
    }
    for good in ["k", "Tenant-7", &long[..127]] {
        assert_eq!(check_key(good), Ok(()), "{good}");
    }
}

#[test]
fn what_is_stored_is_format_version_and_value() {
    let stored = pack("0698c2156c1a4e1da5b6bab6f6422fd6", &[7; 256]);
    assert_eq!(stored[..2], [1, 32]);
    assert_eq!(unpack(&stored), Some(("0698c2156c1a4e1da5b6bab6f6422fd6", [7; 256].as_slice())));
    for length in 0..35 {
        let cut = unpack(&stored[..length]);
        assert!(cut.is_none(), "{length}");
    }
    let bad: [&[u8]; 6] =
        [b"\x00\x01vw", b"\x02\x01vw", b"\x01\x00w", b"\x01\x02..w", b"\x01\x03a/bw", b"\x01\xffw"];
    for bytes in bad {
        assert_eq!(unpack(bytes), None, "{bytes:?}");
    }
    assert_eq!(unpack(&pack("v", &[7; 1025])), None);
    assert_eq!(unpack(&pack(&"v".repeat(65), &[7])), None);
}

#[test]
fn versions_are_of_the_key_that_was_asked_for() {
    // From the published example of wrapKey.
    let kid = "https://myvault.vault.azure.net/keys/sdktestkey/0698c2156c1a4e1da5b6bab6f6422fd6";
    assert_eq!(version_of(kid, "sdktestkey"), Some("0698c2156c1a4e1da5b6bab6f6422fd6"));
    assert_eq!(version_of(kid, "SdkTestKey"), Some("0698c2156c1a4e1da5b6bab6f6422fd6"));
    assert_eq!(version_of(kid, "sdktestke"), None);
    for bad in ["", "https://h/keys/k", "https://h/keys/k/", "https://h/keys/k/v/w", "https://h/secrets/k/v"]
    {
        assert_eq!(version_of(bad, "k"), None, "{bad}");
    }
}

#[test]
fn key_and_tag_go_as_one() {
    let root = crate::core::rng::root_key().unwrap();
    let text = secret_text(&root, b"context").unwrap();
    let secret = secret_from_text(&text).unwrap();
    assert_eq!(secret[..32], root.expose()[..]);
    assert_eq!(secret[32..], tag_of(b"context"));
    assert_ne!(tag_of(b"context"), tag_of(b"contexu"));
    // The first bytes of FIPS 180-4's example for "abc".
    assert_eq!(tag_of(b"abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
    for bad in ["", &text[..63], &format!("{}=", &text[..63]), &format!("{}+", &text[..63])] {
        assert!(secret_from_text(bad).is_none(), "{bad}");
    }
}
