//! S3Gen: speech tokens to waveform.

pub mod encoder;
pub mod flow;
pub mod prompt_mel;
pub mod vocoder;

use crate::{Error, Matrix, Result};

/// Checks that `matrix` has `cols` columns, `rows` rows where a number is given, and only finite values.
fn check(stage: &str, name: &str, matrix: &Matrix, rows: Option<usize>, cols: usize) -> Result<()> {
    if matrix.cols != cols || rows.is_some_and(|rows| rows != matrix.rows) || matrix.data.len() != matrix.rows * matrix.cols {
        let rows = rows.map_or_else(|| "rows".into(), |rows| rows.to_string());
        let (found_rows, found_cols) = (matrix.rows, matrix.cols);
        return Err(Error::argument(format!(
            "{stage}: {name}: expected shape [{rows}, {cols}], got [{found_rows}, {found_cols}]"
        )));
    }
    check_finite(stage, name, &matrix.data)
}

/// Checks that all values are finite.
fn check_finite(stage: &str, name: &str, values: &[f32]) -> Result<()> {
    match values.iter().position(|v| !v.is_finite()) {
        Some(at) => Err(Error::argument(format!("{stage}: {name}: expected finite values, got {} at {at}", values[at]))),
        None => Ok(()),
    }
}

/// Checks the length of a vector and that all its values are finite.
fn check_vector(stage: &str, name: &str, values: &[f32], len: usize) -> Result<()> {
    if values.len() != len {
        return Err(Error::argument(format!("{stage}: {name}: expected {len} values, got {}", values.len())));
    }
    check_finite(stage, name, values)
}
