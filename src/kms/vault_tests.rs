use super::*;
use zeroize::Zeroizing;

fn answer(status: u16, body: &str) -> Answer {
    Answer { status, body: Zeroizing::new(body.as_bytes().to_vec()) }
}

fn verdict(status: u16, words: &str) -> Failure {
    judge(answer(status, &serde_json::json!({ "errors": [words] }).to_string()), "data").unwrap_err()
}

#[test]
fn endpoints_name_host_port_and_mount() {
    let good = [
        ("vault.example:8200/transit", "https://vault.example:8200/v1/transit"),
        ("10.0.0.1:443/team-a/transit", "https://10.0.0.1:443/v1/team-a/transit"),
        ("[fd00::1]:8200/transit", "https://[fd00::1]:8200/v1/transit"),
    ];
    for (rest, base) in good {
        let (server, mount) = parse_place(true, rest).unwrap();
        assert_eq!(server + &mount, base);
    }
}

#[test]
fn other_endpoints_are_refused_without_an_echo() {
    let bad = [
        "",
        "h",
        "h:1",
        "h:1/",
        "/transit",
        ":1/transit",
        "h/transit",
        "h:0/transit",
        "h:65536/transit",
        "h:+1/transit",
        "h:01/transit",
        "user:hunter2@h:1/transit",
        "h:1/transit?token=hunter2",
        "h:1/transit#hunter2",
        "h:1/tr%61nsit",
        "h:1/../sys",
        "h:1/a//b",
        "h:1/transit/",
        "h h:1/transit",
        "h\n:1/transit",
        "h..x:1/transit",
        "::1:8200/transit",
        "[::1]x:1/transit",
        "[hunter2]:1/transit",
    ];
    for rest in bad {
        let error = parse_place(true, rest).unwrap_err();
        assert!(matches!(error, KmsError::Endpoint(_)), "{rest}");
        assert!(!error.to_string().contains("hunter2"), "{rest}");
    }
}

#[test]
fn plain_http_is_for_loopback_only() {
    for rest in ["127.0.0.1:1/t", "127.9.9.9:1/t", "localhost:1/t", "[::1]:1/t"] {
        assert!(parse_place(false, rest).is_ok(), "{rest}");
    }
    for rest in [
        "10.0.0.1:1/t",
        "vault:1/t",
        "localhost.evil:1/t",
        "127.0.0.1.evil:1/t",
        "[fd00::1]:1/t",
        "0.0.0.0:1/t",
    ] {
        assert!(matches!(parse_place(false, rest), Err(KmsError::Endpoint(_))), "{rest}");
    }
}

#[test]
fn wire_facts_of_transit() {
    let denied = [
        (400, "cipher: message authentication failed"),
        (400, "encryption key not found"),
        (400, "ciphertext or signature version is disallowed by policy (too old)"),
        (400, "invalid ciphertext: version is too new"),
        (400, "something new"),
        (403, "permission denied"),
        (403, "1 error occurred:\n\t* permission denied\n\n"),
        (404, "no handler for route \"x/decrypt/k\". route entry not found."),
        (404, "namespace not found"),
    ];
    for (status, words) in denied {
        assert!(matches!(verdict(status, words), Failure::Final(KmsError::Denied(_))), "{words}");
    }
    assert_eq!(verdict(400, "missing 'context' for key derivation"), Failure::Final(NO_CONTEXT));
    assert_eq!(verdict(503, "Vault is sealed"), Failure::Final(KmsError::Unreachable("it is sealed")));
    for status in [429, 412, 500, 502, 503, 504] {
        assert!(matches!(verdict(status, "later"), Failure::Transient(KmsError::Unreachable(_))), "{status}");
    }
}

#[test]
fn answers_of_others_are_no_denial() {
    for (status, body) in
        [(400, "Client sent an HTTP request to an HTTPS server."), (404, "<html>"), (204, "")]
    {
        let error = judge(answer(status, body), "data").unwrap_err();
        assert!(matches!(error, Failure::Final(KmsError::Response(_))), "{status}");
    }
    for body in ["", "{", "[]", "{}", "null", "{\"data\""] {
        assert!(
            matches!(judge(answer(200, body), "data"), Err(Failure::Final(KmsError::Response(_)))),
            "{body}"
        );
    }
}

#[test]
fn only_whole_keys_and_ciphertexts_are_taken() {
    let key = STANDARD.encode([7; 32]);
    assert!(plaintext(serde_json::json!({ "plaintext": key })).is_ok());
    for bad in [
        serde_json::json!({}),
        serde_json::json!({ "plaintext": 7 }),
        serde_json::json!({ "plaintext": "AAAA" }),
    ] {
        assert!(plaintext(bad).is_err());
    }
    let long = format!("vault:v1:{}", "A".repeat(WRAPPED_LIMIT));
    let bad = [
        "",
        "vault:",
        "vault:v1",
        "vault:v1:",
        "vault:v0:AAAA",
        "vault:v01:AAAA",
        "vault:v:AAAA",
        "vault:v1:A",
        "vault:v1:AA\"A",
        "vault:v1:AAAA\n",
        "VAULT:v1:AAAA",
        "vault:v4294967296:AAAA",
        long.as_str(),
    ];
    for text in bad {
        assert!(ciphertext(serde_json::json!({ "ciphertext": text })).is_err(), "{text}");
        assert!(stored(text.as_bytes()).is_err(), "{text}");
    }
    assert_eq!(stored(b"vault:v12:AAAA"), Ok(("context", "vault:v12:AAAA")));
    assert_eq!(stored(b"aad:vault:v12:AAAA"), Ok(("associated_data", "vault:v12:AAAA")));
    assert!(stored(b"aad:aad:vault:v12:AAAA").is_err());
}
