//! Memory that arrays are read to. While somebody [`hold`]s it, what was let go is there for whoever is next: the system clears every
//! page that it hands out, which takes as long as reading it.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use memmap2::MmapMut;

use crate::threads::PerProcess;

#[derive(Debug, Default)]
struct Kept {
    holders: usize,
    maps: Vec<MmapMut>,
}

static KEPT: PerProcess<Mutex<Kept>> = PerProcess::new();

fn kept() -> MutexGuard<'static, Kept> {
    KEPT.get(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// Until it is dropped, memory is kept for the next array; with the last one all of it goes.
#[derive(Debug)]
pub(crate) struct Hold(());

/// Has memory kept for what is read next.
pub(crate) fn hold() -> Hold {
    kept().holders += 1;
    Hold(())
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut kept = kept();
        kept.holders = kept.holders.saturating_sub(1);
        if kept.holders == 0 {
            kept.maps.clear();
        }
    }
}

/// Anonymous memory of `len` bytes of any value, in huge pages where there are any.
#[derive(Debug)]
pub(super) struct Memory {
    map: Option<MmapMut>,
    len: usize,
}

impl Memory {
    pub(super) fn new(len: usize) -> io::Result<Self> {
        let mut kept = kept();
        let fits = kept.maps.iter().enumerate().filter(|(_, map)| map.len() >= len).min_by_key(|(_, map)| map.len());
        let map = match fits.map(|(at, _)| at) {
            Some(at) => kept.maps.swap_remove(at),
            None => MmapMut::map_anon(len)?,
        };
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage); // may be refused, and is then of no use
        Ok(Self { map: Some(map), len })
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_ref().map_or(&[], |map| &map[..self.len])
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.map.as_mut().map_or(&mut [], |map| &mut map[..self.len])
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let mut kept = kept();
        if kept.holders > 0 {
            kept.maps.extend(self.map.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_let_go_is_used_again_while_somebody_holds_it() -> io::Result<()> {
        let (first, second) = (hold(), hold());
        let mut memory = Memory::new(1 << 16)?;
        memory.fill(7);
        let place = memory.as_ptr();
        drop((memory, first));
        let again = Memory::new((1 << 16) - 1)?;
        assert!(again.as_ptr() == place && again.len() == (1 << 16) - 1 && again.iter().all(|byte| *byte == 7));
        drop((again, second));
        Ok(())
    }
}
