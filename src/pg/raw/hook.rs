//! PostgreSQL's hooks: a variable into which each library puts its function, which calls what was there before.

use once_cell::sync::OnceCell;

/// What a hook held before us: the next function of the chain.
pub struct Previous<H>(OnceCell<H>);

impl<F: Copy> Previous<Option<F>> {
    /// Before `_PG_init`.
    pub const fn empty() -> Self {
        Previous(OnceCell::new())
    }

    /// Puts `own` into the hook, once per process; from `_PG_init`.
    ///
    /// # Safety
    /// The hook is PostgreSQL's variable, and `own` calls [`Previous::next`] as the hook's contract says.
    pub unsafe fn install(&self, hook: *mut Option<F>, own: F) {
        // SAFETY: as the caller says; the process has one thread.
        unsafe {
            if self.0.set(*hook).is_ok() {
                *hook = Some(own);
            }
        }
    }

    /// What is to be called; `None` where we are the last.
    pub fn next(&self) -> Option<F> {
        self.0.get().copied().flatten()
    }
}
