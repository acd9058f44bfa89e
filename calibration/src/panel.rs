//! The columns of a panel for [`feed_back`](crate::feedback::feed_back), in any order: taken out of the blocks of a row, and
//! put back.

use formats::block::grid::{Grid, Parts};

use crate::feedback::Levels;

/// What [`feed_back`](crate::feedback::feed_back) takes for a panel of columns: for each column, in the order of quantization.
pub struct Columns<'a> {
    /// The values to approximate.
    pub targets: &'a mut [f32],
    /// The step of the column's group.
    pub steps: &'a mut [f32],
    /// The offset of the column's group.
    pub offsets: &'a mut [f32],
}

impl Columns<'_> {
    /// Takes the columns `order` out of a row of targets and its blocks. `wanted` becomes the targets with the errors of
    /// earlier panels: what is in it, divided by the diagonal of the factor, whose `inverse` is given.
    ///
    /// # Panics
    /// If a slice is shorter than `order`, or the row does not have one of the columns.
    #[inline(never)]
    pub fn take(
        &mut self,
        grid: &dyn Grid,
        order: &[usize],
        targets: &[f32],
        parts: &[Parts],
        wanted: &mut [f32],
        inverse: &[f32],
    ) {
        let shape = grid.shape();
        for (k, &c) in order.iter().enumerate() {
            let part = &parts[c / shape.weights];
            let g = c % shape.weights / shape.group;
            self.targets[k] = targets[c];
            wanted[k] = targets[c] + wanted[k] * inverse[k];
            self.steps[k] = grid.step(part.d, part.scales[g]);
            self.offsets[k] = grid.offset(part.m, part.mins[g]);
        }
    }

    /// Puts the codes of the columns into the blocks of the row, and what they stand for into its `values`.
    ///
    /// # Panics
    /// As [`Columns::take`]; if a code has no level.
    #[inline(never)]
    pub fn put(
        &self,
        grid: &dyn Grid,
        order: &[usize],
        codes: &[u8],
        levels: Levels<'_>,
        parts: &mut [Parts],
        values: &mut [f32],
    ) {
        let weights = grid.shape().weights;
        for (k, &c) in order.iter().enumerate() {
            parts[c / weights].codes[c % weights] = codes[k];
            values[c] = self.steps[k] * levels.value(codes[k]) + self.offsets[k];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::block::DType;

    /// Columns of several blocks, in another order, are those of the row.
    #[test]
    fn columns_come_back_where_they_were() {
        let grid = DType::Q4_1.grid().expect("a scalar grid");
        let shape = grid.shape();
        let n = 3 * shape.weights;
        let mut parts = vec![Parts::default(); 3];
        for (i, part) in parts.iter_mut().enumerate() {
            (part.d, part.m, part.scales[0], part.mins[0]) = (1.0 + i as f32, -(i as f32), 1, 1);
        }
        let targets: Vec<f32> = (0..n).map(|i| i as f32).collect();
        let order: Vec<usize> = (0..n).rev().step_by(2).collect();
        let k = order.len();
        let (mut wanted, inverse) = (vec![2.0; k], vec![0.25; k]);
        let mut buffers = vec![vec![0f32; k]; 3];
        let [own, steps, offsets] = &mut buffers[..] else { unreachable!() };
        let mut columns = Columns { targets: own, steps, offsets };
        columns.take(grid, &order, &targets, &parts, &mut wanted, &inverse);
        let codes: Vec<u8> = (0..k).map(|k| (k % 16) as u8).collect();
        let levels = Levels::new(shape.levels);
        let mut values = vec![f32::NAN; n];
        let before = parts.clone();
        columns.put(grid, &order, &codes, levels, &mut parts, &mut values);
        for (k, &c) in order.iter().enumerate() {
            let (block, at) = (c / shape.weights, c % shape.weights);
            assert_eq!((columns.targets[k], wanted[k]), (c as f32, c as f32 + 0.5));
            let part = &before[block];
            assert_eq!(columns.steps[k], grid.step(part.d, part.scales[0]));
            assert_eq!(columns.offsets[k], grid.offset(part.m, part.mins[0]));
            assert_eq!(parts[block].codes[at], codes[k]);
            assert_eq!(values[c], columns.steps[k] * levels.value(codes[k]) + columns.offsets[k]);
        }
        assert!(values.iter().filter(|x| x.is_nan()).count() == n - k);
    }
}
