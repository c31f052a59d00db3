//! The question "is a number or time at this path between these bounds?".
//!
//! Inside a filter it is sealed as: domain (u8), length (u32) and bytes of the path as it was written, then for each bound 0, or
//! 1 with length (u32) and bytes: a canonical number, or microseconds (i128). All integers are big-endian.

use zeroize::Zeroizing;

use super::bytes::{Reader, put_prefixed};
use super::jsonb::{JsonbError, walk};
use super::policy::{Policy, PolicyError, plain_path};
use super::range::{Bounds, Decimal, Domain, Reading, Scalar};

/// Where to look, and between what.
#[derive(PartialEq, Eq)]
pub struct Between {
    path: String,
    keys: Vec<Vec<u8>>,
    bounds: Bounds,
}

impl Between {
    /// `path` names object keys only, such as `$.a.b`; arrays on the way are looked into.
    pub fn new(path: &str, bounds: Bounds) -> Result<Self, PolicyError> {
        Ok(Between { path: path.to_owned(), keys: plain_path(path)?, bounds })
    }

    /// The object keys of the path.
    pub fn keys(&self) -> Vec<&[u8]> {
        self.keys.iter().map(Vec::as_slice).collect()
    }

    /// The bounds.
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// Is what it asks about searchable?
    pub fn is_declared(&self, policy: &Policy) -> bool {
        policy.covers_scalar(&self.keys(), 0)
    }

    /// Does a document have such a number or time there? The reading is that of the policy which made its tokens.
    pub fn holds(&self, document: &[u8], reading: Reading) -> Result<bool, JsonbError> {
        let mut found = false;
        walk(document, |leaf| {
            if !found && leaf.keys.iter().copied().eq(self.keys.iter().map(Vec::as_slice)) {
                let scalar = Scalar::of(self.bounds.domain, reading, leaf.kind, leaf.value);
                found = scalar.is_some_and(|scalar| self.bounds.contain(&scalar));
            }
            Ok::<(), JsonbError>(())
        })?;
        Ok(found)
    }

    /// The plaintext of a filter.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(vec![self.bounds.domain as u8]);
        put_prefixed(&mut out, self.path.as_bytes());
        for bound in [&self.bounds.low, &self.bounds.high] {
            match bound {
                None => out.push(0),
                Some(scalar) => {
                    out.push(1);
                    put_prefixed(&mut out, &scalar.to_bytes());
                }
            }
        }
        out
    }

    /// Reads what [`Between::encode`] wrote; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let domain = Domain::try_from(reader.u8()?).ok()?;
        let path = std::str::from_utf8(reader.prefixed()?).ok()?;
        let low = read_bound(domain, &mut reader)?;
        let high = read_bound(domain, &mut reader)?;
        let bounds = reader.is_empty().then_some(Bounds { domain, low, high })?;
        Between::new(path, bounds).ok()
    }
}

/// A bound, which may be open.
fn read_bound(domain: Domain, reader: &mut Reader<'_>) -> Option<Option<Scalar>> {
    if reader.u8()? == 0 {
        return Some(None);
    }
    let bound = reader.prefixed()?;
    Some(Some(match domain {
        Domain::Numbers => Scalar::Number(Decimal::new(bound.to_vec())?),
        Domain::Times => Scalar::Time(i128::from_be_bytes(bound.try_into().ok()?)),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sealed_form_reads_back_and_cut_bytes_are_refused() {
        let number = Scalar::Number(Decimal::new(vec![0, 0, 0, 0, 0, b'7']).unwrap());
        let numbers = Bounds { domain: Domain::Numbers, low: Some(number), high: None };
        let times =
            Bounds { domain: Domain::Times, low: None, high: Some(Scalar::Time(i128::from(i64::MAX) + 1)) };
        for bounds in [numbers, times] {
            let between = Between::new(r#"$.a."odd key""#, bounds).unwrap();
            let encoded = between.encode();
            assert!(Between::decode(&encoded) == Some(between));
            for end in 0..encoded.len() {
                assert!(Between::decode(&encoded[..end]).is_none());
            }
        }
    }

    #[test]
    fn a_wildcard_is_no_place_to_look_at() {
        let open = Bounds { domain: Domain::Numbers, low: None, high: None };
        assert!(Between::new("$.*", open.clone()).is_err());
        assert!(Between::new("$.a.**", open.clone()).is_err());
        assert!(Between::new("$", open).is_ok());
    }
}
