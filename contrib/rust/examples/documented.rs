//! What NumPack's documentation of its Rust interface shows, with the import changed and the results checked.
//!
//!     cargo run --manifest-path contrib/rust/Cargo.toml --example documented -- DIRECTORY
//!
//! after `make install`. Makes stores in the directory.

use half::f16;
use ndarray::{array, Array2, ArrayD, IxDyn};
use num_complex::{Complex32, Complex64};
use numpackfs::core::error::{NpkError, NpkResult};
use numpackfs::prelude::*;
use std::path::Path;
use std::thread;

fn basic_usage(directory: &Path) -> NpkResult<()> {
    let io = ParallelIO::new(directory.join("basic.npk"))?;
    let data = Array2::<f32>::from_shape_fn((1000, 128), |(r, c)| (r * 128 + c) as f32);
    io.save_arrays(&[("embeddings".to_string(), data.clone().into_dyn(), DataType::Float32)])?;
    let loaded: ArrayD<f32> = io.load_array("embeddings")?;
    assert_eq!(loaded.shape(), &[1000, 128]);
    assert_eq!(loaded, data.into_dyn());
    let extra = Array2::<f32>::ones((50, 128)).into_dyn();
    io.append_rows("embeddings", &extra)?;
    assert_eq!(io.get_shape("embeddings")?, vec![1050, 128]);
    io.sync_metadata()
}

fn array_operations(directory: &Path) -> NpkResult<()> {
    let io = ParallelIO::new(directory.join("operations.npk"))?;
    let data = Array2::<f32>::from_shape_fn((1000, 128), |(r, _)| r as f32).into_dyn();
    io.save_arrays(&[("embeddings".to_string(), data, DataType::Float32)])?;
    let extra = Array2::<f32>::from_elem((100, 128), -1.0).into_dyn();
    io.append_rows("embeddings", &extra)?;
    let arr: ArrayD<f32> = io.load_array("embeddings")?;
    assert_eq!(arr.shape(), &[1100, 128]);

    let rows: ArrayD<f32> = io.getitem("embeddings", &[0, 10, -1])?;
    assert_eq!(rows.shape(), &[3, 128]);
    assert_eq!((rows[[0, 0]], rows[[1, 5]], rows[[2, 127]]), (0.0, 10.0, -1.0));
    assert_eq!(io.read_rows("embeddings", &[10])?[..4], 10f32.to_le_bytes());

    let new_rows = Array2::<f32>::from_elem((2, 128), 42.0).into_dyn();
    io.replace_rows("embeddings", &new_rows, &[0, 1])?;
    io.drop_arrays("embeddings", Some(&[5, 6, 7]))?;
    io.compact_array("embeddings")?;
    io.clone_array("embeddings", "embeddings_backup")?;

    assert_eq!(io.get_shape("embeddings")?, [1097, 128]);
    assert_eq!(io.list_arrays(), ["embeddings", "embeddings_backup"]);
    assert!(io.get_modify_time("embeddings") > Some(1_600_000_000_000_000) && io.get_modify_time("nobody").is_none());
    let kept = io.getitem::<f32>("embeddings_backup", &[1, 4, 5])?;
    assert_eq!([kept[[0, 0]], kept[[1, 0]], kept[[2, 0]]], [42.0, 4.0, 8.0]);
    io.drop_arrays("embeddings_backup", None)?;
    assert!(io.has_array("embeddings") && !io.has_array("embeddings_backup"));

    let mut seen = vec![];
    let iter: StreamIterator<f32> = io.stream_load("embeddings", 500)?;
    for batch_result in iter {
        let batch: ArrayD<f32> = batch_result?;
        seen.push(batch.shape()[0]);
    }
    assert_eq!(seen, [500, 500, 97]);
    io.sync_metadata()
}

fn data_types(directory: &Path) -> NpkResult<()> {
    fn round<T: Element + PartialEq + std::fmt::Debug>(io: &ParallelIO, values: [T; 2], dtype: DataType) -> NpkResult<()> {
        let name = format!("{dtype:?}");
        let data = ArrayD::from_shape_vec(IxDyn(&[2]), values.to_vec()).expect("two elements");
        io.save_arrays(&[(name.clone(), data.clone(), dtype)])?;
        assert_eq!(io.load_array::<T>(&name)?, data);
        let told = io.get_array_metadata(&name)?;
        assert_eq!((told.shape, told.dtype, told.size_bytes), (vec![2], dtype, 2 * std::mem::size_of::<T>() as u64));
        Ok(())
    }
    let io = ParallelIO::new(directory.join("types.npk"))?;
    round(&io, [true, false], DataType::Bool)?;
    round(&io, [-1i8, 7], DataType::Int8)?;
    round(&io, [-300i16, 7], DataType::Int16)?;
    round(&io, [-70_000i32, 7], DataType::Int32)?;
    round(&io, [i64::MIN, 7], DataType::Int64)?;
    round(&io, [255u8, 7], DataType::Uint8)?;
    round(&io, [65_535u16, 7], DataType::Uint16)?;
    round(&io, [u32::MAX, 7], DataType::Uint32)?;
    round(&io, [u64::MAX, 7], DataType::Uint64)?;
    round(&io, [f16::from_f32(0.5), f16::MAX], DataType::Float16)?;
    round(&io, [0.1f32, f32::MAX], DataType::Float32)?;
    round(&io, [0.1f64, f64::MIN_POSITIVE], DataType::Float64)?;
    round(&io, [Complex32::new(1.0, -2.0), Complex32::new(0.5, 0.0)], DataType::Complex64)?;
    round(&io, [Complex64::new(1.0, -2.0), Complex64::new(0.5, 0.0)], DataType::Complex128)
}

fn concurrent_write(directory: &Path) -> NpkResult<()> {
    let handles: Vec<_> = (0..10)
        .map(|i| {
            let dir = directory.join("concurrent.npk");
            thread::spawn(move || {
                let io = ParallelIO::new(dir)?;
                let data = Array2::<f32>::from_elem((100, 128), i as f32).into_dyn();
                io.save_arrays(&[(format!("chunk_{i}"), data, DataType::Float32)])?;
                io.sync_metadata()?;
                Ok::<_, NpkError>(())
            })
        })
        .collect();
    for h in handles {
        h.join().expect("no panic")?;
    }
    let io = ParallelIO::new(directory.join("concurrent.npk"))?;
    assert_eq!(io.get_member_list().len(), 10);
    for i in 0..10 {
        assert!(io.load_array::<f32>(&format!("chunk_{i}"))?.iter().all(|&v| v == i as f32));
    }
    Ok(())
}

fn error_handling(directory: &Path) -> NpkResult<()> {
    let io = ParallelIO::new(directory.join("operations.npk"))?;
    match io.get_array_metadata("nonexistent") {
        Err(NpkError::ArrayNotFound(message)) => assert!(message.contains("nonexistent"), "{message}"),
        other => panic!("{other:?}"),
    }
    let wide = array![[1f32, 2.]];
    assert!(matches!(io.append_rows("embeddings", &wide), Err(NpkError::InvalidArgument(_))));
    assert!(matches!(io.load_array::<f64>("embeddings"), Err(NpkError::InvalidArgument(_))));
    assert!(matches!(io.getitem::<f32>("embeddings", &[1097]), Err(NpkError::IndexOutOfBounds(_))));
    assert!(matches!(io.clone_array("embeddings", "embeddings"), Err(NpkError::AlreadyExists(_))));
    let given_up: NpkResult<()> = io.transaction(|inside| {
        inside.drop_arrays("embeddings", None)?;
        inside.clone_array("embeddings", "again")
    });
    assert!(matches!(given_up, Err(NpkError::ArrayNotFound(_))), "{given_up:?}");
    assert_eq!(io.get_shape("embeddings")?, [1097, 128]);
    Ok(())
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    if words.len() != 2 {
        eprintln!("usage: {} DIRECTORY", words[0]);
        std::process::exit(2);
    }
    let directory = Path::new(&words[1]);
    for part in [basic_usage, array_operations, data_types, concurrent_write, error_handling] {
        if let Err(e) = part(directory) {
            eprintln!("{e}");
            std::process::exit(1);
        }
    }
    println!("as documented");
}
