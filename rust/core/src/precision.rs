//! In which formats the networks hold their weights and compute their products.

use std::fmt;
use std::str::FromStr;

use candle_core::Device;

use crate::{Error, kernels};

/// The formats of T3 and of S3Gen; whatever is not named here is float32 at any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// float32: the numbers that the official package is compared with.
    #[default]
    F32,
    /// T3's large weights in 8 bits, see [`crate::kernels::int8`]: a quarter of the bytes, on the CPU only.
    Int8,
    /// S3Gen's products in bfloat16, see [`crate::kernels::bf16`], on the CPU only.
    Bf16,
    /// Both.
    Int8Bf16,
    /// T3's large weights in 4 bits, see [`crate::kernels::int4`], on the CPU only.
    Int4,
    /// The same, and S3Gen's products in bfloat16.
    Int4Bf16,
}

/// The format of T3's large weights: the blocks' projections and the speech head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum T3Weights {
    /// float32, on the CPU in 20 bits.
    #[default]
    F32,
    /// 8 bits.
    Int8,
    /// 4 bits.
    Int4,
}

impl T3Weights {
    /// `"f32"`, `"int8"` or `"int4"`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }
}

/// The format of the factors of a layer's products of many rows; sums are float32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Products {
    /// float32.
    #[default]
    F32,
    /// bfloat16: weights are rounded when they are loaded, inputs when they are used.
    Bf16,
}

impl Products {
    /// `"f32"` or `"bf16"`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

impl Precision {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::F32, Self::Int8, Self::Bf16, Self::Int8Bf16, Self::Int4, Self::Int4Bf16];

    /// `"f32"`, `"int8"`, `"bf16"`, `"int8+bf16"`, `"int4"` or `"int4+bf16"`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Int8 => "int8",
            Self::Bf16 => "bf16",
            Self::Int8Bf16 => "int8+bf16",
            Self::Int4 => "int4",
            Self::Int4Bf16 => "int4+bf16",
        }
    }

    /// The fastest for `device`: 8 bits on the CPU, with bfloat16 where the CPU multiplies it faster than float32.
    pub fn auto(device: &Device) -> Self {
        match (device.is_cpu(), kernels::bf16::fast()) {
            (false, _) => Self::F32,
            (true, false) => Self::Int8,
            (true, true) => Self::Int8Bf16,
        }
    }

    /// T3's large weights.
    pub fn t3(self) -> T3Weights {
        match self {
            Self::F32 | Self::Bf16 => T3Weights::F32,
            Self::Int8 | Self::Int8Bf16 => T3Weights::Int8,
            Self::Int4 | Self::Int4Bf16 => T3Weights::Int4,
        }
    }

    /// S3Gen's products on `device`.
    ///
    /// # Errors
    /// [`Error::Argument`] for bfloat16 on another device than the CPU.
    pub fn s3gen(self, device: &Device) -> Result<Products, Error> {
        match self {
            Self::F32 | Self::Int8 | Self::Int4 => Ok(Products::F32),
            _ if device.is_cpu() => Ok(Products::Bf16),
            _ => Err(Error::argument(format!("precision: expected f32 on this device, got {self}, which runs on the CPU"))),
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
            let names = Self::ALL.map(Self::name).join(", ");
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
        assert_eq!(error.as_deref(), Some("precision: expected f32, int8, bf16, int8+bf16, int4, int4+bf16, got \"f17\""));
    }

    #[test]
    fn a_precision_says_both_formats() {
        let formats = |p: Precision| (p.t3(), p.s3gen(&Device::Cpu).ok());
        assert_eq!(formats(Precision::F32), (T3Weights::F32, Some(Products::F32)));
        assert_eq!(formats(Precision::Int8), (T3Weights::Int8, Some(Products::F32)));
        assert_eq!(formats(Precision::Bf16), (T3Weights::F32, Some(Products::Bf16)));
        assert_eq!(formats(Precision::Int8Bf16), (T3Weights::Int8, Some(Products::Bf16)));
        assert_eq!(formats(Precision::Int4), (T3Weights::Int4, Some(Products::F32)));
        assert_eq!(formats(Precision::Int4Bf16), (T3Weights::Int4, Some(Products::Bf16)));
        let auto = Precision::auto(&Device::Cpu);
        assert!(auto.t3() == T3Weights::Int8 && (auto == Precision::Int8Bf16) == kernels::bf16::fast());
    }
}
