//! Residual blocks of snakes and convolutions as a stream over time.

use candle_core::Tensor;

use super::{Conv1d, Conv1dOptions, Snake, with_slice};
use crate::Result;
use crate::kernels::stream::{Cut, Layer, blocks};

/// Blocks over the same input, whose outputs are summed.
#[derive(Debug)]
pub struct ResidualBlocks<'a> {
    blocks: Vec<Vec<Layer<'a>>>,
    cut: Cut,
}

impl<'a> ResidualBlocks<'a> {
    /// Each block is pairs of a convolution and the snake before it. `None` where this is not for `rows` of that input: on other devices,
    /// for other padding, for weights that products do not read from panels, and for so few rows that threads would be idle.
    pub fn new(layers: &[Vec<(&Snake, &'a Conv1d)>], rows: usize) -> Result<Option<Self>> {
        let channels = layers.iter().flatten().next().map_or(1, |(_, conv)| conv.geometry().input);
        match Cut::new(rows, channels) {
            Some(cut) => Self::with_cut(layers, cut),
            None => Ok(None),
        }
    }

    fn with_cut(layers: &[Vec<(&Snake, &'a Conv1d)>], cut: Cut) -> Result<Option<Self>> {
        let mut all = Vec::new();
        for block in layers {
            let mut found = Vec::new();
            for (snake, conv) in block {
                let g = conv.geometry();
                let padding = (g.kernel - 1) / 2 * g.dilation;
                let same = Conv1dOptions { dilation: g.dilation, ..Conv1dOptions::padded(padding) };
                let (Some(weight), Some(bias)) = (conv.panels(), conv.bias()) else { return Ok(None) };
                if conv.options() != same || g.kernel % 2 == 0 || g.input != g.output || snake.alpha().elem_count() != g.input {
                    return Ok(None);
                }
                let values = |x: &Tensor| with_slice(x, <[f32]>::to_vec);
                found.push(Layer::new(weight, values(bias)?, values(snake.alpha())?, g.kernel, g.dilation));
            }
            all.push(found);
        }
        Ok(Some(Self { blocks: all, cut }))
    }

    /// `out = Σ block(x)`, and what `out` held with `add`; both `[T, C]`. `step` hears `(done, of)` pieces of the work and may stop it.
    pub fn run(&self, x: &[f32], out: &mut [f32], add: bool, step: impl FnMut(usize, usize) -> Result<()>) -> Result<()> {
        blocks(&self.blocks, x, out, add, self.cut, step)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::super::{Fused, Pointwise};
    use super::*;
    use crate::kernels::level::testing::at_every_level;
    use crate::precision::Products;

    type Pairs = Vec<(Snake, Conv1d)>;

    fn block(c: usize, kernel: usize, dilations: &[usize], products: Products) -> Result<Pairs> {
        let layer = |dilation: usize| -> Result<(Snake, Conv1d)> {
            let options = Conv1dOptions { dilation, ..Conv1dOptions::padded((kernel - 1) / 2 * dilation) };
            let values = Tensor::randn(0f32, 0.1, c * c * kernel, &Device::Cpu)?.to_vec1()?;
            let bias = Tensor::randn(0f32, 1.0, c, &Device::Cpu)?;
            let alpha = (Tensor::randn(0f32, 1.0, c, &Device::Cpu)?.abs()? + 0.1)?;
            Ok((Snake::new(alpha), Conv1d::new(&values, Some(bias), c, c, kernel, options, &Device::Cpu, products)?))
        };
        dilations.iter().flat_map(|d| [layer(*d), layer(1)]).collect()
    }

    /// Layer by layer.
    fn plain(blocks: &[Pairs], x: &Tensor, sum: Option<&Tensor>) -> Result<Vec<f32>> {
        let mut sum = sum.cloned();
        for block in blocks {
            let mut x = x.clone();
            for (i, pair) in block.chunks(2).enumerate() {
                let before = |i: usize| Some(Pointwise::Snake(&pair[i].0));
                let y = pair[0].1.forward_fused(&x, &Fused { before: before(0), ..Fused::default() })?;
                let last = i + 1 == block.len() / 2;
                let add: Vec<&Tensor> = std::iter::once(&x).chain(sum.iter().filter(|_| last)).collect();
                x = pair[1].1.forward_fused(&y, &Fused { before: before(1), add: &add, ..Fused::default() })?;
            }
            sum = Some(x);
        }
        Ok(sum.map_or(Ok(Vec::new()), |sum| sum.flatten_all()?.to_vec1())?)
    }

    #[test]
    fn a_stream_has_the_bits_of_the_layers() {
        at_every_level(|| {
            let check = |c: usize, products: Products| -> Result<()> {
                let blocks =
                    [block(c, 3, &[1, 3, 5], products)?, block(c, 7, &[1, 3, 5], products)?, block(c, 11, &[5, 2], products)?];
                let layers: Vec<Vec<_>> = blocks.iter().map(|b| b.iter().map(|(s, c)| (s, c)).collect()).collect();
                for (rows, tile, stretches) in [(1, 90, 1), (7, 3, 3), (61, 20, 1), (500, 90, 3), (333, 32, 7)] {
                    let Some(stream) = ResidualBlocks::with_cut(&layers, Cut::of(tile, stretches))? else {
                        assert!(products == Products::F32, "bfloat16 is always dealt");
                        return Ok(());
                    };
                    let new = || Tensor::randn(0f32, 1.0, (1, rows, c), &Device::Cpu);
                    let (x, sum) = (new()?, new()?);
                    let values = x.flatten_all()?.to_vec1()?;
                    for add in [false, true] {
                        let mut out: Vec<f32> = sum.flatten_all()?.to_vec1()?;
                        let mut calls = Vec::new();
                        stream.run(&values, &mut out, add, |done, of| {
                            calls.push((done, of));
                            Ok(())
                        })?;
                        assert!(calls.last().is_some_and(|(done, of)| done == of));
                        let twin = plain(&blocks, &x, add.then_some(&sum))?;
                        let same = out.iter().zip(&twin).all(|(a, b)| a.to_bits() == b.to_bits());
                        assert!(
                            same && out.len() == twin.len(),
                            "{c} channels, {rows} rows in tiles of {tile}, {products:?}, {add}"
                        );
                    }
                }
                Ok(())
            };
            for (c, products) in
                [(16, Products::F32), (64, Products::F32), (70, Products::F32), (5, Products::Bf16), (66, Products::Bf16)]
            {
                check(c, products).unwrap_or_else(|e| unreachable!("{e}"));
            }
        });
    }

    #[test]
    fn work_stops_when_it_is_told_to() -> Result<()> {
        let block = block(16, 3, &[1], Products::Bf16)?;
        let layers = [block.iter().map(|(s, c)| (s, c)).collect::<Vec<_>>()];
        let stream = ResidualBlocks::with_cut(&layers, Cut::of(4, 2))?;
        let (x, mut out) = (vec![0.5; 16 * 40], vec![7.0; 16 * 40]);
        let stopped = stream.map(|stream| stream.run(&x, &mut out, false, |_, _| Err(crate::Error::Cancelled)));
        assert!(matches!(stopped, Some(Err(crate::Error::Cancelled))) && out.contains(&7.0));
        Ok(())
    }
}
