//! Why a call failed. Every message is libnumpack's own: it names file, byte, array or value.

use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NpkError {
    ArrayNotFound(String),
    /// Another dtype, width or shape than the array's, a name that cannot be, a metric that is unknown.
    InvalidArgument(String),
    IndexOutOfBounds(String),
    AlreadyExists(String),
    /// Another process writes the store; the message says which.
    Busy(String),
    Corrupted(String),
    /// Anything else: the errno and what happened.
    Os(i32, String),
}

pub type NpkResult<T> = Result<T, NpkError>;

impl NpkError {
    pub(crate) fn new(code: i32, message: String) -> Self {
        match code {
            2 => NpkError::ArrayNotFound(message),     // ENOENT
            16 => NpkError::Busy(message),             // EBUSY
            17 => NpkError::AlreadyExists(message),    // EEXIST
            22 => NpkError::InvalidArgument(message),  // EINVAL
            34 => NpkError::IndexOutOfBounds(message), // ERANGE
            117 => NpkError::Corrupted(message),       // EUCLEAN
            _ => NpkError::Os(code, message),
        }
    }
}

impl fmt::Display for NpkError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        use NpkError::*;
        let (ArrayNotFound(message)
        | InvalidArgument(message)
        | IndexOutOfBounds(message)
        | AlreadyExists(message)
        | Busy(message)
        | Corrupted(message)
        | Os(_, message)) = self;
        f.write_str(message)
    }
}

impl std::error::Error for NpkError {}
