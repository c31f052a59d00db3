//! The lists of a new index: centroids of a sample of its rows.

use zeroize::Zeroizing;

use crate::core::held::HeldNumbers;
use crate::core::ivf::build::default_lists;
use crate::core::ivf::directory;
use crate::core::ivf::index::Index as Lists;
use crate::core::ivf::meta::Meta;
use crate::core::memory;
use crate::core::rng;
use crate::core::vector::kmeans::{self, Training};
use crate::core::vector::quantiser::Quantiser;
use crate::pg::error::PgError;
use crate::pg::ivf::keys;
use crate::pg::raw::datum::detoast;
use crate::pg::raw::index_am::Building;
use crate::pg::raw::locked_memory::GUARD;
use crate::pg::raw::xact;

/// Rows that a centroid is made of.
const SAMPLES: usize = 64;
/// Rows that the mean of a single list is made of.
const SAMPLES_OF_ONE: usize = 2_000;

/// Lists for the table as it is, a single one around the mean of its rows; `None` where no row has a key and a direction.
pub fn lists(building: &Building, meta: &Meta, keyring: i32) -> Result<Option<Lists>, PgError> {
    let rows = building.estimated_rows().max(0.0);
    let count = building.lists().unwrap_or_else(|| default_lists(rows as u64)).max(1) as usize;
    let quantiser = Quantiser::new(&meta.index, meta.metric, meta.layout.rows);
    let dimensions = meta.layout.rotated_dimensions();
    let most = (building.memory() / 3 / (4 * dimensions)).min((SAMPLES * count).max(SAMPLES_OF_ONE));
    let mut chance = Chance::new()?;
    let mut sample = Zeroizing::new(memory::room::<f32>(most * dimensions)?);
    building.rows(|tid, value, alive| {
        // A little more than is wanted, in case there are fewer rows than it seems.
        let is_wanted = alive && chance.unit() * rows < 1.2 * most as f64;
        if !is_wanted || sample.len() >= most * dimensions {
            return Ok(());
        }
        let elements = keys::if_there(keyring, || keys::elements_of(detoast(value).bytes(), meta));
        let elements = elements.map_err(|error| error.of_row(building.index().name(), tid))?;
        let prepared = elements.and_then(|elements| quantiser.prepare(&elements)).map(Zeroizing::new);
        sample.extend(prepared.iter().flat_map(|prepared| prepared.iter()));
        Ok(())
    });
    let mut centroids = Zeroizing::new(kmeans::centroids(&sample, dimensions, count, &mut chance)?);
    directory::round(&mut centroids);
    let found = centroids.len() / dimensions;
    if found == 0 {
        return Ok(None);
    }
    let centroids = HeldNumbers::copy(&centroids, GUARD)?;
    Ok(Lists::new(Meta { lists: found as u32, ..*meta }, centroids))
}

/// Random numbers for a sample: nothing secret depends on them.
struct Chance(u64);

impl Chance {
    fn new() -> Result<Self, PgError> {
        Ok(Chance(u64::from_le_bytes(rng::bytes()?)))
    }

    /// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    /// From 0 to below 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl Training for Chance {
    type Error = PgError;

    fn random(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn check(&mut self) -> Result<(), PgError> {
        xact::check_interrupts();
        Ok(())
    }
}
