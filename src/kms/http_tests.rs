use super::*;

#[test]
fn pauses_stay_within_their_bounds() {
    let pauses: Vec<_> = (0..200).map(|_| jittered(FIRST_PAUSE)).collect();
    assert!(pauses.iter().all(|pause| *pause >= FIRST_PAUSE / 2 && *pause <= FIRST_PAUSE));
    assert!(pauses.iter().any(|pause| *pause != pauses[0]));
}

#[test]
fn a_library_error_keeps_its_words_to_itself() {
    let told = [
        ureq::Error::BadUri("https://secret@host".into()),
        ureq::Error::Io(std::io::Error::new(ErrorKind::InvalidData, "secret")),
        ureq::Error::Io(std::io::Error::other("secret")),
        ureq::Error::Other("secret".into()),
        ureq::Error::RequireHttpsOnly("secret".into()),
    ];
    for error in told {
        assert!(!format!("{:?}", failure(error)).contains("secret"));
    }
}

#[test]
fn settings_are_checked_before_any_call() {
    let good = Settings::new(FIRST_PAUSE, || false);
    assert!(Client::new(&good).is_ok());
    let timeless = Settings { timeout: Duration::ZERO, ..good.clone() };
    assert!(matches!(Client::new(&timeless), Err(KmsError::Setting(_))));
    for path in ["/nonexistent", "/dev/zero", "/etc/passwd", "/tmp"] {
        let untrusted = Settings { ca_file: Some(path.into()), ..good.clone() };
        assert!(matches!(Client::new(&untrusted), Err(KmsError::File { .. })), "{path}");
    }
}
