//! The error tree. Every error names the stage or file it comes from, what was expected and what was found.

use std::path::{Path, PathBuf};

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong. The Python binding maps each variant to the exception of the same name
/// (`Error::Audio` becomes `chatterbox_turbo_rs.errors.AudioError`).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A checkpoint file is missing, damaged or does not fit the configuration.
    #[error("{}: {detail}", file.display())]
    Checkpoint {
        /// The file that was read.
        file: PathBuf,
        /// Tensor, expectation and finding.
        detail: String,
    },
    /// The model configuration is not valid.
    #[error("configuration: {0}")]
    Config(String),
    /// A reference clip cannot be used.
    #[error("{0}")]
    Audio(String),
    /// A reference clip is in a format or a codec that this crate does not read: another reader may.
    #[error("{0}")]
    UnsupportedAudio(String),
    /// A text cannot be used.
    #[error("{0}")]
    Text(String),
    /// An argument has the wrong type, shape or range.
    #[error("{0}")]
    Argument(String),
    /// The watermark's weights are missing or damaged.
    #[error("watermark: {0}")]
    Watermark(String),
    /// The device is unknown or cannot be used.
    #[error("device: {0}")]
    Device(String),
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// Reading or writing a file failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A tensor operation failed inside a stage: a defect of this crate.
    #[error("internal error: {0}")]
    Internal(#[source] candle_core::Error),
}

impl From<candle_core::Error> for Error {
    fn from(e: candle_core::Error) -> Self {
        crate::device::failure(e)
    }
}

impl Error {
    /// A checkpoint error about `file`.
    pub fn checkpoint(file: impl AsRef<Path>, detail: impl Into<String>) -> Self {
        Self::Checkpoint { file: file.as_ref().to_path_buf(), detail: detail.into() }
    }

    /// An error from the operating system about `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_path_buf(), source }
    }

    /// An error about an argument.
    pub fn argument(detail: impl Into<String>) -> Self {
        Self::Argument(detail.into())
    }
}
