//! The tile instructions as Intel's manual (volume 2, TDPBF16PS and its neighbours) defines them; what would be a fault is a panic.

use super::tile::{BYTES, ROWS, Shapes, TILES, Tiles};

#[derive(Clone, Copy, Default)]
struct Tile {
    rows: usize,
    bytes: usize,
    data: [[[u8; 4]; BYTES / 4]; ROWS],
}

/// Nothing is wrong with the model.
pub(super) const RIGHT: u8 = 0;
/// Signed bytes are taken for unsigned ones.
pub(super) const UNSIGNED: u8 = 1;
/// Even values of k alone count.
pub(super) const EVEN: u8 = 2;

pub(super) struct Model<const FAULT: u8 = RIGHT>([Tile; TILES]);

/// Subnormal numbers count as zero, and none come out.
fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}

fn fused(a: [u8; 2], b: [u8; 2], sum: f32) -> f32 {
    let value = |v: [u8; 2]| flush(f32::from_bits(u32::from(u16::from_le_bytes(v)) << 16));
    flush(value(a).mul_add(value(b), sum))
}

impl<const FAULT: u8> Model<FAULT> {
    fn tile(&mut self, t: usize) -> &mut Tile {
        assert!(self.0[t].rows > 0, "tile {t} has no shape");
        &mut self.0[t]
    }

    /// The three tiles of `C += A · B`, whose shapes must go together.
    fn operands(&mut self, [c, a, b]: [usize; 3]) -> [Tile; 3] {
        assert!(c != a && a != b && c != b, "tiles {c}, {a} and {b} must differ");
        let [c, a, b] = [c, a, b].map(|t| *self.tile(t));
        assert!(c.rows == a.rows && a.bytes == 4 * b.rows && c.bytes == b.bytes, "shapes of a product");
        [c, a, b]
    }

    /// Writes the outputs of `value(row, column)`; everything else of the tile becomes zero.
    fn set(&mut self, t: usize, value: impl Fn(usize, usize) -> [u8; 4]) {
        let tile = self.tile(t);
        tile.data = Default::default();
        for i in 0..tile.rows {
            for j in 0..tile.bytes / 4 {
                tile.data[i][j] = value(i, j);
            }
        }
    }
}

impl<const FAULT: u8> Tiles for Model<FAULT> {
    fn take() -> Self {
        Self(Default::default())
    }

    unsafe fn configure(&mut self, shapes: &Shapes) {
        let bytes = shapes.bytes();
        assert!(
            bytes[0] == 1 && [&bytes[1..16], &bytes[32..48], &bytes[56..]].concat().iter().all(|b| *b == 0),
            "reserved bytes"
        );
        for (t, tile) in self.0.iter_mut().enumerate() {
            let (rows, width) =
                (usize::from(bytes[48 + t]), usize::from(u16::from_le_bytes([bytes[16 + 2 * t], bytes[17 + 2 * t]])));
            assert!(rows <= ROWS && width <= BYTES && width.is_multiple_of(4) && (rows == 0) == (width == 0), "tile {t}");
            *tile = Tile { rows, bytes: width, ..Tile::default() };
        }
    }

    unsafe fn zero<const T: usize>(&mut self) {
        self.tile(T).data = Default::default();
    }

    unsafe fn load<const T: usize>(&mut self, from: *const u8, stride: usize) {
        // SAFETY: promised by the caller for the rows and bytes of the shape, which alone are read.
        self.set(T, |i, j| unsafe { from.add(i * stride + 4 * j).cast::<[u8; 4]>().read() });
    }

    unsafe fn store<const T: usize>(&mut self, to: *mut u8, stride: usize) {
        let tile = self.tile(T);
        for i in 0..tile.rows {
            for j in 0..tile.bytes / 4 {
                // SAFETY: promised by the caller.
                unsafe { to.add(i * stride + 4 * j).cast::<[u8; 4]>().write(tile.data[i][j]) };
            }
        }
    }

    unsafe fn dot_bf16<const C: usize, const A: usize, const B: usize>(&mut self) {
        let [c, a, b] = self.operands([C, A, B]);
        self.set(C, |i, j| {
            // even and odd values of k have a sum each
            let (mut even, mut odd) = (0.0, 0.0);
            for k in 0..b.rows {
                let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (a.data[i][k], b.data[k][j]);
                even = fused([a0, a1], [b0, b1], even);
                if FAULT != EVEN {
                    odd = fused([a2, a3], [b2, b3], odd);
                }
            }
            flush(flush(f32::from_le_bytes(c.data[i][j])) + flush(even + odd)).to_le_bytes()
        });
    }

    unsafe fn dot_int8<const C: usize, const A: usize, const B: usize>(&mut self) {
        let [c, a, b] = self.operands([C, A, B]);
        self.set(C, |i, j| {
            let signed = |a: u8| if FAULT == UNSIGNED { i32::from(a) } else { i32::from(a as i8) };
            let quad = |k: usize| a.data[i][k].iter().zip(b.data[k][j]).map(|(a, b)| signed(*a) * i32::from(b)).sum::<i32>();
            (0..b.rows).map(quad).fold(i32::from_le_bytes(c.data[i][j]), i32::wrapping_add).to_le_bytes()
        });
    }
}
