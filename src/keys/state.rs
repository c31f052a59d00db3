//! The life of a key version: active, decrypt-only, retired, destroyed. It only moves forward.

/// State of a data or index key version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyState {
    /// Seals new values; exactly one version of a keyring and purpose.
    Active,
    /// Opens older values, seals nothing.
    DecryptOnly,
    /// Refused for every use; the wrapped key is kept.
    Retired,
    /// The wrapped key has been erased.
    Destroyed,
}

/// The text in the catalog is no state.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown key state in the catalog")]
pub struct UnknownState;

/// A keyring has had 65,535 versions of a key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("all 65535 versions of this key are used up")]
pub struct VersionsUsedUp;

impl KeyState {
    /// As the catalog stores it.
    pub fn as_str(self) -> &'static str {
        match self {
            KeyState::Active => "active",
            KeyState::DecryptOnly => "decrypt-only",
            KeyState::Retired => "retired",
            KeyState::Destroyed => "destroyed",
        }
    }

    /// Reads what [`KeyState::as_str`] wrote.
    pub fn parse(text: &str) -> Result<Self, UnknownState> {
        let states = [KeyState::Active, KeyState::DecryptOnly, KeyState::Retired, KeyState::Destroyed];
        states.into_iter().find(|state| state.as_str() == text).ok_or(UnknownState)
    }

    /// Values sealed under this version may be opened.
    pub fn opens(self) -> bool {
        self <= KeyState::DecryptOnly
    }

    /// Only forward, and only an unused version may be retired.
    pub fn may_become(self, next: KeyState) -> bool {
        matches!(
            (self, next),
            (KeyState::Active, KeyState::DecryptOnly)
                | (KeyState::DecryptOnly, KeyState::Retired)
                | (KeyState::Retired, KeyState::Destroyed)
        )
    }
}

/// The version after the newest there has ever been; versions are never reused.
pub fn next_version(newest: u16) -> Result<u16, VersionsUsedUp> {
    newest.checked_add(1).ok_or(VersionsUsedUp)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [KeyState; 4] =
        [KeyState::Active, KeyState::DecryptOnly, KeyState::Retired, KeyState::Destroyed];

    #[test]
    fn states_only_move_one_step_forward() {
        for (from, a) in ALL.iter().enumerate() {
            for (to, b) in ALL.iter().enumerate() {
                assert_eq!(a.may_become(*b), to == from + 1, "{a:?} -> {b:?}");
            }
        }
    }

    #[test]
    fn only_live_states_open_values() {
        assert_eq!(ALL.map(KeyState::opens), [true, true, false, false]);
    }

    #[test]
    fn the_stored_text_reads_back() {
        assert!(ALL.iter().all(|state| KeyState::parse(state.as_str()) == Ok(*state)));
        assert_eq!(KeyState::parse("Active"), Err(UnknownState));
    }

    #[test]
    fn versions_end_without_reuse() {
        assert_eq!(next_version(1), Ok(2));
        assert_eq!(next_version(u16::MAX), Err(VersionsUsedUp));
    }
}
