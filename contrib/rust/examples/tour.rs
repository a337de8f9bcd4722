//! An array of a store from Rust, by libnumpack and without a mount: save, map, append, drop, search, write in place, a transaction.
//!
//!     cargo run --manifest-path contrib/rust/Cargo.toml --example tour -- STORE
//!
//! after `make install`. The store is made when it is not there; writes the arrays `tour` and `kept`.

use ndarray::{array, Array2};
use numpackfs::prelude::*;

/// Rows of i, i * i and 1.
fn rows(first: usize, last: usize) -> Array2<f32> {
    Array2::from_shape_fn((last - first, 3), |(r, c)| [first + r, (first + r) * (first + r), 1][c] as f32)
}

fn tour(store: &str) -> NpkResult<()> {
    let io = ParallelIO::new(store)?;
    let print_shape = |what: &str, name: &str| -> NpkResult<()> {
        let shape = io.get_shape(name)?;
        println!("{what} {} {}", shape[0], shape[1]);
        Ok(())
    };

    io.save_arrays(&[("tour".to_string(), rows(0, 6).into_dyn(), DataType::Float32)])?;
    print_shape("saved", "tour")?;

    let view = io.get_array_view("tour")?; // of the mapped file, no copy
    let sum: f32 = view.run(0)?.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).sum();
    println!("sum {sum}");

    io.append_rows("tour", &rows(6, 8))?;
    print_shape("appended", "tour")?;

    io.drop_arrays("tour", Some(&[0, -1]))?;
    print_shape("dropped", "tour")?;
    assert_eq!(view.shape(), [6, 3]); // a view keeps the rows that it was taken with

    let first = io.getitem::<f32>("tour", &[0])?;
    for (row, score) in io.search("tour", first.as_slice().expect("in order"), "l2sq", 2)? {
        println!("near {row} {score}");
    }

    io.replace_rows("tour", &array![[1f32, 1., 100.]], &[0])?;
    println!("wrote {}", io.getitem::<f32>("tour", &[0])?[[0, 2]]);

    // Two changes that become one. Nobody outside sees what is done inside before it returns.
    io.transaction(|inside| {
        inside.save("kept", &inside.load_array::<f32>("tour")?)?;
        inside.drop_arrays("tour", Some(&[0, 1]))
    })?;
    print_shape("kept", "kept")?;
    print_shape("tour", "tour")?;
    io.sync_metadata() // now any NumPack reads it
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    if words.len() != 2 {
        eprintln!("usage: {} STORE", words[0]);
        std::process::exit(2);
    }
    if let Err(e) = tour(&words[1]) {
        eprintln!("{e}");
        std::process::exit(1);
    }
}
