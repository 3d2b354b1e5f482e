//! How long work reports progress and is asked to stop.

use crate::Result;

/// Called by long stages at a steady pace (every token, every transformer block).
///
/// Returning an error (usually [`crate::Error::Cancelled`]) stops the work; the error is handed to the caller.
pub trait Observer {
    /// `done` of `total` units of `stage` are finished.
    fn progress(&self, stage: &'static str, done: usize, total: usize) -> Result<()>;
}

/// Reports nothing, never stops.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn progress(&self, _stage: &'static str, _done: usize, _total: usize) -> Result<()> {
        Ok(())
    }
}
