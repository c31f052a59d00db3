//! Type modifiers of encrypted columns: the keyring that a column is bound to and, of vectors, how many dimensions they
//! have. Whatever reads a modifier does it here; in SQL, `pgseal.keyring_of_typmod` does.
//!
//! Of `encrypted_jsonb` and `encrypted_text` it is the keyring's id. Of `encrypted_vector` it is `dimensions << 17 | tag`,
//! where the tag is the low bits of the id and 0 dimensions are any number of them. `create_keyring` draws ids whose tags
//! differ.

const TAG_BITS: u32 = 17;
const TAG_MASK: i32 = (1 << TAG_BITS) - 1;

/// Different tags there are.
pub const TAGS: usize = TAG_MASK as usize;

/// The low bits of a keyring's id, by which a column of vectors names it; 0 names none.
pub fn tag(keyring: i32) -> i32 {
    keyring & TAG_MASK
}

/// Does this modifier, of any encrypted type, bind its column to a keyring?
pub fn is_bound(typmod: i32) -> bool {
    typmod > 0
}

/// The modifier of a column of vectors; `dimensions` is at most 16,000, 0 for any number.
pub fn of_vectors(keyring: i32, dimensions: usize) -> i32 {
    (dimensions as i32) << TAG_BITS | tag(keyring)
}

/// How a column names its keyring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Not at all.
    No,
    /// By its id.
    Id(i32),
    /// By its tag.
    Tag(i32),
}

/// What a type modifier says of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its keyring.
    pub bound: Bound,
    /// How many dimensions its vectors have, where it says so.
    pub dimensions: Option<usize>,
}

impl Column {
    /// A column, or something else, without a modifier.
    pub const ANY: Column = Column { bound: Bound::No, dimensions: None };

    /// Of `encrypted_jsonb` or `encrypted_text`.
    pub fn of_documents(typmod: i32) -> Self {
        let bound = if is_bound(typmod) { Bound::Id(typmod) } else { Bound::No };
        Column { bound, dimensions: None }
    }

    /// Of `encrypted_vector`.
    pub fn of_vectors(typmod: i32) -> Self {
        if !is_bound(typmod) {
            return Self::ANY;
        }
        let dimensions = (typmod >> TAG_BITS) as usize;
        Column { bound: Bound::Tag(tag(typmod)), dimensions: (dimensions > 0).then_some(dimensions) }
    }

    /// It is bound to a keyring.
    pub fn is_bound(self) -> bool {
        self.bound != Bound::No
    }

    /// Values of this keyring may be in it.
    pub fn takes(self, keyring: i32) -> bool {
        match self.bound {
            Bound::No => true,
            Bound::Id(id) => id == keyring,
            Bound::Tag(named) => named == tag(keyring),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_a_modifier_a_column_takes_every_keyring() {
        for typmod in [-1, 0] {
            assert_eq!(Column::of_documents(typmod), Column::ANY);
            assert_eq!(Column::of_vectors(typmod), Column::ANY);
        }
        assert!(Column::ANY.takes(7));
    }

    #[test]
    fn the_largest_modifier_is_positive() {
        assert_eq!(of_vectors(i32::MAX, 16_000), 16_000 << 17 | 0x1FFFF);
        assert!(of_vectors(i32::MAX, 16_000) > 0);
    }

    proptest! {
        #[test]
        fn a_modifier_of_vectors_keeps_tag_and_dimensions(keyring in 1..i32::MAX, dimensions in 0..=16_000_usize) {
            prop_assume!(tag(keyring) != 0);
            let column = Column::of_vectors(of_vectors(keyring, dimensions));
            prop_assert_eq!(column.bound, Bound::Tag(keyring & 0x1FFFF));
            prop_assert_eq!(column.dimensions.unwrap_or(0), dimensions);
            prop_assert!(column.takes(keyring));
            prop_assert!(!column.takes(keyring ^ 1));
            // A dump may have the tag alone.
            prop_assert_eq!(of_vectors(tag(keyring), dimensions), of_vectors(keyring, dimensions));
        }

        #[test]
        fn a_modifier_of_documents_is_the_id(keyring in 1..i32::MAX) {
            prop_assert_eq!(Column::of_documents(keyring).bound, Bound::Id(keyring));
            prop_assert!(!Column::of_documents(keyring).takes(keyring ^ 1 << 20));
        }
    }
}
