//! In which format a network holds its weights.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// The format of T3's large weight matrices; everything else is float32 at either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// float32: the numbers that the official package is compared with.
    #[default]
    F32,
    /// 8 bits, see [`crate::kernels::int8`]: a quarter of the bytes, on the CPU only.
    Int8,
}

impl Precision {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::F32, Self::Int8];

    /// `"f32"` or `"int8"`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Int8 => "int8",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = Error;

    /// # Errors
    /// [`Error::Argument`] that names the precisions.
    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|precision| precision.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(" or ");
            Error::argument(format!("precision: expected {names}, got {name:?}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_refused() {
        for precision in Precision::ALL {
            assert!(precision.to_string().parse::<Precision>().is_ok_and(|found| found == precision));
        }
        let error = "f17".parse::<Precision>().err().map(|e| e.to_string());
        assert_eq!(error.as_deref(), Some("precision: expected f32 or int8, got \"f17\""));
    }
}
