//! What can go wrong in a stage, and the way out where there is one.

use std::io;
use std::path::{Path, PathBuf};

/// The result of every stage.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed stage.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is not what its format wants, or a format cannot hold the model.
    #[error(transparent)]
    Format(#[from] formats::Error),
    /// A file of statistics is not what its format wants, or not of the model.
    #[error(transparent)]
    Statistics(Box<calibration::Error>), // with two files' names and sizes it is large, and results are everywhere
    /// The system refused.
    #[error("{path}: cannot {what}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// "open", "read", "write", ...
        what: &'static str,
        /// The system's words.
        source: io::Error,
    },
    /// Something that this tool will not do.
    #[error("{why}")]
    Refused {
        /// The reason.
        why: String,
        /// The way out.
        hint: Option<String>,
    },
    /// Options that contradict each other or the files.
    #[error("{why}")]
    Usage {
        /// The reason.
        why: String,
        /// The way out.
        hint: Option<String>,
    },
    /// A check found something. What it found has been reported.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// An error of the system at a path.
    pub fn io(path: &Path, what: &'static str, source: io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), what, source }
    }

    /// Something that this tool will not do.
    pub fn refused(why: impl Into<String>) -> Self {
        Self::Refused { why: why.into(), hint: None }
    }

    /// Wrong usage.
    pub fn usage(why: impl Into<String>) -> Self {
        Self::Usage { why: why.into(), hint: None }
    }

    /// The same with a way out.
    #[must_use]
    pub fn or(mut self, way_out: impl Into<String>) -> Self {
        if let Self::Refused { hint, .. } | Self::Usage { hint, .. } = &mut self {
            *hint = Some(way_out.into());
        }
        self
    }

    /// What the reader can do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Refused { hint, .. } | Self::Usage { hint, .. } => hint.as_deref(),
            Self::Io { source, what, .. } => match source.kind() {
                io::ErrorKind::StorageFull => Some("free some space or write to another disk"),
                io::ErrorKind::PermissionDenied => Some("check the permissions of the file and its folder"),
                io::ErrorKind::ReadOnlyFilesystem => Some("write to another folder"),
                io::ErrorKind::NotFound if *what == "create" => Some("check the path; folders are not made"),
                io::ErrorKind::NotFound => Some("check the path"),
                _ => None,
            },
            Self::Statistics(e) => match fault(e) {
                Some(calibration::Fault::Mismatch { .. } | calibration::Fault::Unlike { .. }) => {
                    Some("an imatrix belongs to one model, or to others of the same shape and names")
                }
                Some(calibration::Fault::NotAnImatrix(_)) => {
                    Some("`ggufkit calibrate MODEL TEXT -o FILE` makes one, as llama-imatrix does")
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// The process's exit status: 2 for wrong usage, 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Usage { .. }) { 2 } else { 1 }
    }
}

impl From<calibration::Error> for Error {
    fn from(e: calibration::Error) -> Self {
        Self::Statistics(Box::new(e))
    }
}

fn fault(e: &calibration::Error) -> Option<&calibration::Fault> {
    match e {
        calibration::Error::Statistics { fault, .. } => Some(fault),
        calibration::Error::Format(_) => None,
    }
}
