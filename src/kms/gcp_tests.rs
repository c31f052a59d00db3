use std::time::Duration;

use super::*;

fn open(rest: &str) -> Result<GcpKms, KmsError> {
    GcpKms::open(rest, &Settings::new(Duration::from_secs(1), || false))
}

#[test]
fn endpoints_are_a_key_ring_and_perhaps_an_address() {
    let ring = "projects/p-1/locations/europe-west3/keyRings/ring_1";
    assert_eq!(open(ring).unwrap().base, "https://cloudkms.googleapis.com/v1/");
    assert!(open("projects/example.com:p-1/locations/global/keyRings/r").is_ok());
    for (given, base) in [
        ("https://kms.example", "https://kms.example/v1/"),
        ("https://kms.example:444/", "https://kms.example:444/v1/"),
        ("http://127.0.0.1:4567", "http://127.0.0.1:4567/v1/"),
        ("http://[::1]:4567", "http://[::1]:4567/v1/"),
    ] {
        assert_eq!(open(&format!("{ring}?endpoint={given}")).unwrap().base, base);
    }
    let bad_rings = [
        "",
        "p",
        "projects/p/locations/l/keyRings/",
        "projects/p/locations/l/keyRings/r/",
        "projects/p/locations/l/keyRings/r/cryptoKeys/k",
        "projects//locations/l/keyRings/r",
        "projects/../locations/l/keyRings/r",
        "projects/a:b:c/locations/l/keyRings/r",
        "projects/p/locations/l/keyRings/r.1",
        "projects/p/locations/l/keyrings/r",
        "projects/p/locations/l/keyRings/r?canary=1",
        "projects/p/locations/l/keyRings/r#",
    ];
    for bad in bad_rings {
        assert_eq!(open(bad).err(), Some(BAD_RING), "{bad}");
    }
    for given in [
        "",
        "kms.example",
        "http://10.0.0.1:1",
        "https://a:canary@h",
        "https://h/v1",
        "https://h?a=b",
        "ftp://h",
    ] {
        let error = open(&format!("{ring}?endpoint={given}")).err().unwrap();
        assert!(matches!(error, KmsError::Endpoint(text) if !text.contains("canary")), "{given}");
    }
}

#[test]
fn names_of_keys_are_as_the_service_allows() {
    let long = "k".repeat(64);
    for bad in ["", "a.b", "a/b", "a:b", "k\n", "a b", "\u{fc}", &long] {
        assert_eq!(check_key(bad), Err(BAD_KEY), "{bad:?}");
    }
    for good in ["k", "tenant-7_MAIN", &long[..63]] {
        assert_eq!(check_key(good), Ok(()), "{good}");
    }
}

#[test]
fn checksums_are_crc32c_in_decimal() {
    // RFC 3720, B.4: 32 bytes of zeroes are AA 36 91 8A there, lowest byte first.
    assert_eq!(checksum(&[0; 32]).as_str(), 0x8a91_36aa_u32.to_string());
    assert_eq!(checksum(b"123456789").as_str(), "3808858755");
}

#[test]
fn private_keys_are_pem() {
    let pem = |middle: &str| format!("-----BEGIN PRIVATE KEY-----\n{middle}\n-----END PRIVATE KEY-----\n");
    assert_eq!(pkcs8(&pem("AAEC\r\nAwQF")).unwrap().as_slice(), [0, 1, 2, 3, 4, 5]);
    for bad in ["", "AAEC", &pem("A"), &pem("A-_A"), &pem("").replace("PRIVATE", "RSA PRIVATE")] {
        assert!(pkcs8(bad).is_none(), "{bad}");
    }
}

#[test]
fn the_project_s_number_may_come_back_for_its_id() {
    let version = "/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/";
    let answer = |name: &str| {
        serde_json::json!({
            "name": name,
            "ciphertext": STANDARD.encode([7; 9]),
            "ciphertextCrc32c": checksum(&[7; 9]).as_str(),
            "verifiedPlaintextCrc32c": true,
            "verifiedAdditionalAuthenticatedDataCrc32c": true,
        })
    };
    for good in ["projects/p", "projects/4711"] {
        assert_eq!(encrypted(answer(&format!("{good}{version}1")), version), Ok(vec![7; 9]));
    }
    for bad in ["", "projects/p", "projects/p/locations/l/keyRings/r/cryptoKeys/k2/cryptoKeyVersions/1"] {
        assert!(
            matches!(encrypted(answer(bad), version), Err(Failure::Final(KmsError::Response(_)))),
            "{bad}"
        );
    }
}

#[test]
fn a_number_is_taken_as_well_as_a_string() {
    let sum = crc32c::crc32c(&[7; 32]);
    for claimed in [serde_json::json!(sum), serde_json::json!(sum.to_string())] {
        let answer = serde_json::json!({ "plaintext": STANDARD.encode([7; 32]), "plaintextCrc32c": claimed });
        assert_eq!(decrypted(answer).ok().unwrap().expose(), &[7; 32]);
    }
    for claimed in [serde_json::json!(sum ^ 1), serde_json::json!(-1), serde_json::json!(null)] {
        let answer = serde_json::json!({ "plaintext": STANDARD.encode([7; 32]), "plaintextCrc32c": claimed });
        assert_eq!(decrypted(answer).err(), Some(GARBLED));
    }
}
