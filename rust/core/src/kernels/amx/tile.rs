//! The tile instructions, behind a trait.

use std::arch::asm;

/// Rows of a tile.
pub(super) const ROWS: usize = 16;
/// Bytes of a row of a tile.
pub(super) const BYTES: usize = 64;
/// Tile registers.
pub(super) const TILES: usize = 8;

/// Rows and bytes of a row of every tile, as `ldtilecfg` reads them.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shapes([u8; 64]);

impl Shapes {
    /// Of every tile `(rows, bytes of a row)`; a tile of (0, 0) is not used.
    pub(super) fn new(tiles: [(usize, usize); TILES]) -> Self {
        let mut bytes = [0; 64];
        bytes[0] = 1; // the palette of 8 tiles of 16 rows of 64 bytes
        for (t, (rows, width)) in tiles.into_iter().enumerate() {
            debug_assert!(rows <= ROWS && width <= BYTES && (rows == 0) == (width == 0), "tile {t}: {rows} x {width}");
            bytes[16 + 2 * t] = width as u8;
            bytes[48 + t] = rows as u8;
        }
        Self(bytes)
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

/// The tile registers of this thread; dropping them releases their state.
pub(super) trait Tiles {
    /// The registers, without shapes.
    fn take() -> Self;

    /// Gives the tiles their shapes, and zeros.
    ///
    /// # Safety
    /// This and all other instructions: [`super::available`] must hold.
    unsafe fn configure(&mut self, shapes: &Shapes);

    /// Fills tile `T` with zeros.
    ///
    /// # Safety
    /// As all below: the tiles must have shapes that the instruction takes.
    unsafe fn zero<const T: usize>(&mut self);

    /// Reads the rows of tile `T`, `stride` bytes apart.
    ///
    /// # Safety
    /// All of them must be readable.
    unsafe fn load<const T: usize>(&mut self, from: *const u8, stride: usize);

    /// Writes the rows of tile `T`, `stride` bytes apart.
    ///
    /// # Safety
    /// All of them must be writable.
    unsafe fn store<const T: usize>(&mut self, to: *mut u8, stride: usize);

    /// `C += A · B` in float32, for rows of pairs of bf16 in `A` and pairs of rows interleaved in `B`.
    ///
    /// # Safety
    /// See [`Self::zero`].
    unsafe fn dot_bf16<const C: usize, const A: usize, const B: usize>(&mut self);

    /// `C += A · B` in int32, for quads of signed bytes in `A` and of unsigned bytes in `B`.
    ///
    /// # Safety
    /// See [`Self::zero`].
    unsafe fn dot_int8<const C: usize, const A: usize, const B: usize>(&mut self);
}

/// The instructions. Compilers use no tile registers of their own: what one instruction leaves there, the next one finds.
pub(super) struct Hardware(());

impl Drop for Hardware {
    fn drop(&mut self) {
        // SAFETY: where this exists, the CPU has the instruction; it frees 8 KiB of state that every context switch would save.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags)) };
    }
}

impl Tiles for Hardware {
    #[inline(always)]
    fn take() -> Self {
        Self(())
    }

    #[inline(always)]
    unsafe fn configure(&mut self, shapes: &Shapes) {
        // SAFETY: promised by the caller.
        unsafe { asm!("ldtilecfg [{}]", in(reg) shapes.0.as_ptr(), options(nostack, preserves_flags)) };
    }

    #[inline(always)]
    unsafe fn zero<const T: usize>(&mut self) {
        // SAFETY: promised by the caller.
        unsafe { asm!("tilezero tmm{t}", t = const T, options(nostack, preserves_flags)) };
    }

    #[inline(always)]
    unsafe fn load<const T: usize>(&mut self, from: *const u8, stride: usize) {
        // SAFETY: promised by the caller.
        unsafe {
            asm!(
                "tileloadd tmm{t}, [{from} + {stride}*1]",
                t = const T,
                from = in(reg) from,
                stride = in(reg) stride,
                options(nostack, preserves_flags),
            );
        }
    }

    #[inline(always)]
    unsafe fn store<const T: usize>(&mut self, to: *mut u8, stride: usize) {
        // SAFETY: promised by the caller.
        unsafe {
            asm!(
                "tilestored [{to} + {stride}*1], tmm{t}",
                t = const T,
                to = in(reg) to,
                stride = in(reg) stride,
                options(nostack, preserves_flags),
            );
        }
    }

    #[inline(always)]
    unsafe fn dot_bf16<const C: usize, const A: usize, const B: usize>(&mut self) {
        // SAFETY: promised by the caller.
        unsafe {
            asm!("tdpbf16ps tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B, options(nostack, preserves_flags));
        }
    }

    #[inline(always)]
    unsafe fn dot_int8<const C: usize, const A: usize, const B: usize>(&mut self) {
        // SAFETY: promised by the caller.
        unsafe {
            asm!("tdpbsud tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B, options(nostack, preserves_flags));
        }
    }
}
