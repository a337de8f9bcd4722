//! Element types.

use half::f16;
use num_complex::{Complex32, Complex64};

/// The codes on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum DataType {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Float16,
    Float32,
    Float64,
    Complex64,
    Complex128,
}

impl DataType {
    pub(crate) fn of(code: u32) -> Option<DataType> {
        use DataType::*;
        [Bool, Uint8, Uint16, Uint32, Uint64, Int8, Int16, Int32, Int64, Float16, Float32, Float64, Complex64, Complex128]
            .get(code as usize)
            .copied()
    }
}

/// A Rust type that is laid out as one of NumPack's dtypes.
///
/// # Safety
/// It has the dtype's size, and every pattern of bits is one of its values; `bool` alone is put right by the reader.
pub unsafe trait Element: Copy + 'static {
    const DTYPE: DataType;
}

macro_rules! element {
    ($($rust:ty => $dtype:ident),* $(,)?) => { $(unsafe impl Element for $rust { const DTYPE: DataType = DataType::$dtype; })* };
}
element! {
    bool => Bool, u8 => Uint8, u16 => Uint16, u32 => Uint32, u64 => Uint64, i8 => Int8, i16 => Int16, i32 => Int32, i64 => Int64,
    f16 => Float16, f32 => Float32, f64 => Float64, Complex32 => Complex64, Complex64 => Complex128,
}
