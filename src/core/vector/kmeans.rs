//! Centroids of a sample: Lloyd's k-means, from some hundred on in two steps, of which the second divides each cluster of
//! the first.

use super::distance::l2_squared;
use crate::core::memory::{self, OutOfMemory};

const ROUNDS: usize = 10;
/// Centroids that are found in one step, at most.
const MOST_AT_ONCE: usize = 256;

/// Vectors of one length, one after the other.
#[derive(Clone, Copy)]
struct Sample<'a> {
    elements: &'a [f32],
    dimensions: usize,
}

/// What training needs from the world around it.
pub trait Training {
    /// What it can end in.
    type Error: From<OutOfMemory>;

    /// A random number below `bound`, which is not zero.
    fn random(&mut self, bound: usize) -> usize;

    /// Called some thousand times a second: where a statement is cancelled.
    fn check(&mut self) -> Result<(), Self::Error>;
}

/// Centroids of the vectors in `sample`, in random order: near ones do not have near numbers. There are `count`, or nearly
/// so many where there are hundreds; of fewer vectors there are as many centroids as vectors.
pub fn centroids<T: Training>(
    sample: &[f32],
    dimensions: usize,
    count: usize,
    training: &mut T,
) -> Result<Vec<f32>, T::Error> {
    let sample = Sample { elements: sample, dimensions };
    let mut centroids = if count > MOST_AT_ONCE {
        in_two_steps(sample, count, training)?
    } else {
        lloyd(sample, count, training)?.0
    };
    shuffle(&mut centroids, dimensions, training);
    Ok(centroids)
}

fn in_two_steps<T: Training>(sample: Sample, count: usize, training: &mut T) -> Result<Vec<f32>, T::Error> {
    let (_, clusters) = lloyd(sample, count.isqrt(), training)?;
    let coarse = clusters.iter().max().map_or(0, |last| last + 1);
    let mut members = vec![Vec::new(); coarse];
    for (vector, cluster) in sample.vectors().zip(&clusters) {
        memory::append(&mut members[*cluster], vector)?;
    }
    let sizes: Vec<usize> = members.iter().map(|members| members.len() / sample.dimensions).collect();
    let mut centroids = Vec::new();
    for (elements, share) in members.iter().zip(shares(&sizes, count)) {
        let members = Sample { elements, ..sample };
        memory::append(&mut centroids, &lloyd(members, share, training)?.0)?;
    }
    Ok(centroids)
}

/// Divides `count` among clusters of these sizes; none gets more than its size, and each that has members one at least.
fn shares(sizes: &[usize], count: usize) -> Vec<usize> {
    let total: usize = sizes.iter().sum();
    let (mut seen, mut given) = (0, 0);
    let mut share = |size: usize| {
        seen += size;
        // What is due up to here, rounded: what one cluster does not get the next ones do.
        let due = (seen * count + total / 2) / total.max(1);
        let share = due.saturating_sub(given).clamp(size.min(1), size);
        given += share;
        share
    };
    sizes.iter().map(|size| share(*size)).collect()
}

/// The centroids, and the number of each vector's.
fn lloyd<T: Training>(
    sample: Sample,
    count: usize,
    training: &mut T,
) -> Result<(Vec<f32>, Vec<usize>), T::Error> {
    let count = count.min(sample.len());
    let mut centroids = start(sample, count, training)?;
    let mut clusters = vec![0; sample.len()];
    for _ in 0..if count > 1 { ROUNDS } else { 1 } {
        assign(sample, &centroids, &mut clusters, training)?;
        fill_empty(sample, count, &mut clusters, training);
        centroids = means(sample, count, &clusters)?;
    }
    Ok((centroids, clusters))
}

/// Different vectors of the sample, at random.
fn start<T: Training>(sample: Sample, count: usize, training: &mut T) -> Result<Vec<f32>, T::Error> {
    let mut order: Vec<usize> = (0..sample.len()).collect();
    let mut centroids = Vec::new();
    for at in 0..count {
        let other = at + training.random(order.len() - at);
        order.swap(at, other);
        memory::append(&mut centroids, sample.vector(order[at]))?;
    }
    Ok(centroids)
}

fn assign<T: Training>(
    sample: Sample,
    centroids: &[f32],
    clusters: &mut [usize],
    training: &mut T,
) -> Result<(), T::Error> {
    for (vector, cluster) in sample.vectors().zip(clusters) {
        training.check()?;
        *cluster = nearest(vector, centroids);
    }
    Ok(())
}

/// The number of the centroid that is nearest to a vector.
pub fn nearest(vector: &[f32], centroids: &[f32]) -> usize {
    let distances = centroids.chunks_exact(vector.len()).map(|centroid| l2_squared(vector, centroid));
    distances.enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(number, _)| number)
}

/// Gives each cluster without members one of the largest.
fn fill_empty<T: Training>(sample: Sample, count: usize, clusters: &mut [usize], training: &mut T) {
    let mut sizes = vec![0_usize; count];
    clusters.iter().for_each(|cluster| sizes[*cluster] += 1);
    for empty in 0..count {
        if sizes[empty] > 0 {
            continue;
        }
        let largest = (0..count).max_by_key(|cluster| sizes[*cluster]).unwrap_or(0);
        let start = training.random(sample.len());
        let members = (start..sample.len()).chain(0..start);
        if let Some(member) = members.into_iter().find(|member| clusters[*member] == largest) {
            clusters[member] = empty;
            sizes[largest] -= 1;
            sizes[empty] = 1;
        }
    }
}

fn means(sample: Sample, count: usize, clusters: &[usize]) -> Result<Vec<f32>, OutOfMemory> {
    let mut sums = memory::room(count * sample.dimensions)?;
    sums.resize(count * sample.dimensions, 0.0);
    let mut sizes = vec![0.0; count];
    for (vector, cluster) in sample.vectors().zip(clusters) {
        sizes[*cluster] += 1.0;
        let sum = &mut sums[cluster * sample.dimensions..][..sample.dimensions];
        sum.iter_mut().zip(vector).for_each(|(sum, element)| *sum += element);
    }
    for (sum, size) in sums.chunks_exact_mut(sample.dimensions).zip(sizes) {
        sum.iter_mut().for_each(|element| *element /= f32::max(size, 1.0));
    }
    Ok(sums)
}

/// Fisher and Yates.
fn shuffle<T: Training>(centroids: &mut [f32], dimensions: usize, training: &mut T) {
    for at in (1..centroids.len() / dimensions).rev() {
        let other = training.random(at + 1);
        if other < at {
            let (low, high) = centroids.split_at_mut(at * dimensions);
            low[other * dimensions..][..dimensions].swap_with_slice(&mut high[..dimensions]);
        }
    }
}

impl<'a> Sample<'a> {
    fn len(self) -> usize {
        self.elements.len() / self.dimensions
    }

    fn vectors(self) -> impl Iterator<Item = &'a [f32]> {
        self.elements.chunks_exact(self.dimensions)
    }

    fn vector(self, number: usize) -> &'a [f32] {
        &self.elements[number * self.dimensions..][..self.dimensions]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::vector::testing::Random;

    impl Training for Random {
        type Error = OutOfMemory;

        fn random(&mut self, bound: usize) -> usize {
            self.below(bound)
        }

        fn check(&mut self) -> Result<(), OutOfMemory> {
            Ok(())
        }
    }

    /// The mean squared distance of vectors from their nearest centroid.
    fn spread(sample: &[f32], dimensions: usize, centroids: &[f32]) -> f32 {
        let centroid = |number: usize| &centroids[number * dimensions..][..dimensions];
        let distance = |vector: &[f32]| l2_squared(vector, centroid(nearest(vector, centroids)));
        let vectors = sample.chunks_exact(dimensions);
        let count = vectors.len() as f32;
        vectors.map(distance).sum::<f32>() / count
    }

    #[test]
    fn clusters_are_found_in_one_step_and_in_two() {
        let mut random = Random::new(11);
        // Around its centre a vector of 8 elements spreads by 8 * 0.1^2.
        let sample = random.clustered(1000, 8, 30, 0.1).concat();
        for (count, most) in [(60, 0.12), (260, 0.08)] {
            let found = centroids(&sample, 8, count, &mut random).unwrap();
            assert_eq!(found.len(), count * 8);
            let spread = spread(&sample, 8, &found);
            assert!(spread < most, "{count}: {spread}");
        }
    }

    #[test]
    fn one_centroid_is_the_mean() {
        let found = centroids(&[1.0, 2.0, 3.0, 6.0], 2, 1, &mut Random::new(12));
        assert_eq!(found, Ok(vec![2.0, 4.0]));
    }

    #[test]
    fn few_or_equal_vectors_are_centroids_themselves() {
        let mut random = Random::new(13);
        assert_eq!(centroids(&[], 4, 3, &mut random), Ok(vec![]));
        assert_eq!(centroids(&[1.0; 8], 4, 3, &mut random), Ok(vec![1.0; 8]));
        let equal = centroids(&[1.0; 4 * 300], 4, 290, &mut random).unwrap();
        assert!(equal.iter().all(|element| *element == 1.0) && (280..=300).contains(&(equal.len() / 4)));
    }

    #[test]
    fn shares_add_up_and_none_is_larger_than_its_cluster() {
        for sizes in [vec![10, 1, 0, 5], vec![1, 1, 1, 97], vec![50, 50], vec![3]] {
            let total: usize = sizes.iter().sum();
            for count in [sizes.len(), total / 2, total] {
                let shares = shares(&sizes, count);
                let fits = shares
                    .iter()
                    .zip(&sizes)
                    .all(|(share, size)| share <= size && (*share > 0 || *size == 0));
                assert!(fits, "{sizes:?}, {count}: {shares:?}");
                assert!(
                    shares.iter().sum::<usize>().abs_diff(count.min(total)) <= 3,
                    "{sizes:?}, {count}: {shares:?}"
                );
            }
        }
    }
}
