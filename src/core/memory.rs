//! Buffers as large as an input: where the system has no memory for one, it is an error like any other.

/// The system gave no memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("out of memory")]
pub struct OutOfMemory;

/// An empty buffer with room for exactly so many items.
pub fn room<T>(items: usize) -> Result<Vec<T>, OutOfMemory> {
    let mut room = Vec::new();
    room.try_reserve_exact(items).map_err(|_| OutOfMemory)?;
    Ok(room)
}

/// So many zeros.
pub fn zeroed(bytes: usize) -> Result<Vec<u8>, OutOfMemory> {
    let mut zeroed = room(bytes)?;
    zeroed.resize(bytes, 0);
    Ok(zeroed)
}

/// A copy of these items.
pub fn copy<T: Copy>(items: &[T]) -> Result<Vec<T>, OutOfMemory> {
    let mut copy = room(items.len())?;
    copy.extend_from_slice(items);
    Ok(copy)
}

/// What an iterator gives.
pub fn collect<T>(items: impl Iterator<Item = T>) -> Result<Vec<T>, OutOfMemory> {
    try_collect(items.map(Ok))
}

/// What an iterator gives, up to its first error.
pub fn try_collect<T, E: From<OutOfMemory>>(
    mut items: impl Iterator<Item = Result<T, E>>,
) -> Result<Vec<T>, E> {
    items.try_fold(Vec::new(), |mut all, item| {
        push(&mut all, item?)?;
        Ok(all)
    })
}

/// Adds items.
pub fn append<T: Copy>(items: &mut Vec<T>, more: &[T]) -> Result<(), OutOfMemory> {
    items.try_reserve(more.len()).map_err(|_| OutOfMemory)?;
    items.extend_from_slice(more);
    Ok(())
}

/// Adds an item.
pub fn push<T>(items: &mut Vec<T>, item: T) -> Result<(), OutOfMemory> {
    items.try_reserve(1).map_err(|_| OutOfMemory)?;
    items.push(item);
    Ok(())
}
