//! NumPack array stores through libnumpack, with the calls of NumPack's own Rust interface: a program written for the crate
//! `numpack` changes the name that it imports from.
//!
//!     use numpackfs::prelude::*;
//!
//! Beyond that interface: `search`, `transaction`, and the promises of libnumpack. Every change is atomic, and what a call
//! changed survives the death of the process. One process writes a store at a time, another gets `NpkError::Busy`. A
//! `ParallelIO` may be used by many threads at once.

mod element;
pub mod error;
mod ffi;

pub mod core {
    pub use crate::error;
}

pub mod prelude {
    pub use crate::error::{NpkError, NpkResult};
    pub use crate::{ArrayMetadata, ArrayView, DataType, Element, ParallelIO, StreamIterator, Transaction};
}

use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr::{null, null_mut};

use ndarray::{ArrayBase, ArrayD, Data, Dimension, IxDyn};

pub use element::{DataType, Element};
use error::{NpkError, NpkResult};

/// Calls the library with a place for its message.
fn call(what: impl FnOnce(*mut ffi::Err) -> i32) -> NpkResult<()> {
    let mut err = ffi::Err { code: 0, msg: [0; ffi::ERR_MAX] };
    let rc = what(&mut err);
    if rc == 0 {
        return Ok(());
    }
    // The message ends with a NUL within its array.
    let message = unsafe { CStr::from_ptr(err.msg.as_ptr()) }.to_string_lossy().into_owned();
    Err(NpkError::new(-rc, message))
}

fn text(name: &str) -> NpkResult<CString> {
    CString::new(name).map_err(|_| NpkError::InvalidArgument(format!("{name:?}: a NUL is inside")))
}

/// A reference to an array, given back when it goes.
struct Array(*mut ffi::Array);

impl Drop for Array {
    fn drop(&mut self) {
        unsafe { ffi::npk_array_put(self.0) }
    }
}

/// A reference to one layout of an array: while it is held no row moves or goes away.
struct Gen(*mut ffi::Gen);

unsafe impl Send for Gen {}
unsafe impl Sync for Gen {}

impl Drop for Gen {
    fn drop(&mut self) {
        unsafe { ffi::npk_gen_put(self.0) }
    }
}

impl Gen {
    fn info(&self) -> &ffi::GenInfo {
        unsafe { &*ffi::npk_gen_info(self.0) }
    }

    fn shape(&self) -> Vec<usize> {
        let shape = &self.info().shape;
        shape.dim[..shape.ndim as usize].iter().map(|&n| n as usize).collect()
    }

    /// An array of `rows` rows, filled by `read`, which gets room for their bytes.
    fn array<T: Element>(
        &self,
        rows: usize,
        read: impl FnOnce(*mut std::ffi::c_void, *mut ffi::Err) -> i32,
    ) -> NpkResult<ArrayD<T>> {
        if self.info().dtype != T::DTYPE as u32 {
            return Err(NpkError::InvalidArgument(format!(
                "the array is {:?}, not {:?}",
                DataType::of(self.info().dtype),
                T::DTYPE
            )));
        }
        let mut shape = self.shape();
        match shape.first_mut() {
            Some(first) => *first = rows,
            None => return Err(NpkError::InvalidArgument("the array has 0 dimensions".into())),
        }
        let n: usize = shape.iter().product();
        let mut values: Vec<T> = Vec::with_capacity(n);
        let bytes = values.as_mut_ptr().cast::<u8>();
        if n > 0 {
            call(|err| read(bytes.cast(), err))?;
        }
        // The call filled n elements; of bool, every byte that is not 0 is true.
        unsafe {
            if T::DTYPE == DataType::Bool {
                std::slice::from_raw_parts_mut(bytes, n).iter_mut().for_each(|b| *b = (*b != 0) as u8);
            }
            values.set_len(n);
        }
        Ok(ArrayD::from_shape_vec(IxDyn(&shape), values).expect("as many elements as the shape says"))
    }

    fn rows<T: Element>(&self, first: u64, n: u64) -> NpkResult<ArrayD<T>> {
        self.array(n as usize, |out, err| unsafe { ffi::npk_gen_read_rows(self.0, first, n, out, err) })
    }

    fn check<T: Element>(&self, name: &str, shape: &[usize], rows: Option<usize>) -> NpkResult<()> {
        let own = self.shape();
        if self.info().dtype != T::DTYPE as u32 || shape.is_empty() || own.is_empty() || shape[1..] != own[1..] {
            return Err(NpkError::InvalidArgument(format!(
                "array {name:?} is {:?} of shape {own:?}, the rows are {:?} of shape {shape:?}",
                DataType::of(self.info().dtype),
                T::DTYPE
            )));
        }
        match rows {
            Some(n) if n != shape[0] => Err(NpkError::InvalidArgument(format!("{n} indexes for {} rows", shape[0]))),
            _ => Ok(()),
        }
    }
}

/// The calls that a store and a transaction of it share.
struct Handle(*mut ffi::Store);

impl Handle {
    fn array(&self, name: &str) -> NpkResult<Array> {
        let (name, mut out) = (text(name)?, null_mut());
        call(|err| unsafe { ffi::npk_array_get(&mut out, self.0, name.as_ptr(), err) })?;
        Ok(Array(out))
    }

    fn gen(&self, name: &str) -> NpkResult<Gen> {
        let (a, mut out) = (self.array(name)?, null_mut());
        call(|err| unsafe { ffi::npk_gen_get(&mut out, a.0, err) })?;
        Ok(Gen(out))
    }

    fn save<T: Element, S: Data<Elem = T>, D: Dimension>(&self, name: &str, data: &ArrayBase<S, D>) -> NpkResult<()> {
        let (name, data) = (text(name)?, data.as_standard_layout());
        let mut shape = ffi::Shape { ndim: data.ndim() as u32, dim: [0; ffi::MAX_NDIM] };
        if data.ndim() > ffi::MAX_NDIM {
            return Err(NpkError::InvalidArgument(format!("{} dimensions, {} are possible", data.ndim(), ffi::MAX_NDIM)));
        }
        for (to, &n) in shape.dim.iter_mut().zip(data.shape()) {
            *to = n as u64;
        }
        call(|err| unsafe { ffi::npk_store_save(self.0, name.as_ptr(), T::DTYPE as u32, &shape, data.as_ptr().cast(), err) })
    }

    fn append<T: Element, S: Data<Elem = T>, D: Dimension>(&self, name: &str, data: &ArrayBase<S, D>) -> NpkResult<()> {
        self.gen(name)?.check::<T>(name, data.shape(), None)?;
        let (a, data) = (self.array(name)?, data.as_standard_layout());
        call(|err| unsafe { ffi::npk_array_append(a.0, data.as_ptr().cast(), data.shape()[0] as u64, err) })
    }

    fn replace<T: Element, S: Data<Elem = T>, D: Dimension>(
        &self,
        name: &str,
        data: &ArrayBase<S, D>,
        rows: &[i64],
    ) -> NpkResult<()> {
        self.gen(name)?.check::<T>(name, data.shape(), Some(rows.len()))?;
        let (a, data) = (self.array(name)?, data.as_standard_layout());
        call(|err| unsafe { ffi::npk_array_replace(a.0, rows.as_ptr(), rows.len(), data.as_ptr().cast(), 0, err) })
    }

    fn drop_rows(&self, name: &str, rows: Option<&[i64]>) -> NpkResult<()> {
        let Some(rows) = rows else {
            let name = text(name)?;
            return call(|err| unsafe { ffi::npk_store_remove(self.0, name.as_ptr(), err) });
        };
        let a = self.array(name)?;
        call(|err| unsafe { ffi::npk_array_drop_rows(a.0, rows.as_ptr(), rows.len(), null_mut(), err) })
    }

    fn clone_array(&self, source: &str, target: &str) -> NpkResult<()> {
        let (source, target) = (text(source)?, text(target)?);
        call(|err| unsafe { ffi::npk_store_clone(self.0, source.as_ptr(), target.as_ptr(), err) })
    }
}

/// What `get_array_metadata` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrayMetadata {
    pub name: String,
    /// Deleted rows are not counted.
    pub shape: Vec<u64>,
    pub dtype: DataType,
    pub size_bytes: u64,
    /// Microseconds since 1970 UTC.
    pub last_modified: u64,
}

/// The calls that a store and a transaction have in common.
macro_rules! on_arrays {
    () => {
        /// All rows, in memory. InvalidArgument: the array has another dtype.
        pub fn load_array<T: Element>(&self, name: &str) -> NpkResult<ArrayD<T>> {
            let gen = self.handle.gen(name)?;
            gen.rows(0, gen.info().rows)
        }

        pub fn append_rows<T: Element, S: Data<Elem = T>, D: Dimension>(
            &self,
            name: &str,
            data: &ArrayBase<S, D>,
        ) -> NpkResult<()> {
            self.handle.append(name, data)
        }

        /// Row i of `data` goes to row indexes[i], in place.
        pub fn replace_rows<T: Element, S: Data<Elem = T>, D: Dimension>(
            &self,
            name: &str,
            data: &ArrayBase<S, D>,
            indexes: &[i64],
        ) -> NpkResult<()> {
            self.handle.replace(name, data, indexes)
        }

        /// AlreadyExists: there is an array `target`.
        pub fn clone_array(&self, source: &str, target: &str) -> NpkResult<()> {
            self.handle.clone_array(source, target)
        }

        /// Hides rows, or removes the array when `indexes` is None.
        pub fn drop_arrays(&self, name: &str, indexes: Option<&[i64]>) -> NpkResult<()> {
            self.handle.drop_rows(name, indexes)
        }
    };
}

/// An open store. When it goes the store is written out and closed; `sync_metadata` does the former and tells errors.
pub struct ParallelIO {
    handle: Handle,
}

unsafe impl Send for ParallelIO {}
unsafe impl Sync for ParallelIO {}

impl Drop for ParallelIO {
    fn drop(&mut self) {
        unsafe { ffi::npk_store_close(self.handle.0) }
    }
}

impl ParallelIO {
    on_arrays!();

    /// Opens the directory, or makes it.
    pub fn new(path: impl Into<PathBuf>) -> NpkResult<Self> {
        let path = path.into();
        let name = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| NpkError::InvalidArgument(format!("{path:?}: a NUL is inside")))?;
        let mut store = null_mut();
        call(|err| unsafe { ffi::npk_store_open(&mut store, name.as_ptr(), ffi::RDWR | ffi::CREATE, err) })?;
        Ok(ParallelIO { handle: Handle(store) })
    }

    /// Each array whole or not at all. InvalidArgument: an array's DataType is not that of its elements.
    pub fn save_arrays<T: Element>(&self, arrays: &[(String, ArrayD<T>, DataType)]) -> NpkResult<()> {
        for (name, _, dtype) in arrays {
            if *dtype != T::DTYPE {
                return Err(NpkError::InvalidArgument(format!("{name}: {dtype:?} is said, the elements are {:?}", T::DTYPE)));
            }
        }
        arrays.iter().try_for_each(|(name, data, _)| self.handle.save(name, data))
    }

    /// Everything so far, in the form that any NumPack reads.
    pub fn sync_metadata(&self) -> NpkResult<()> {
        call(|err| unsafe { ffi::npk_store_sync(self.handle.0, err) })
    }

    /// Takes over what other processes changed.
    pub fn refresh(&self) -> NpkResult<()> {
        call(|err| unsafe { ffi::npk_store_refresh(self.handle.0, None, null_mut(), err) })
    }

    /// Removes all arrays.
    pub fn reset(&self) -> NpkResult<()> {
        call(|err| unsafe { ffi::npk_store_reset(self.handle.0, err) })
    }

    /// Rows by index, in the order given; negative ones count from the end. IndexOutOfBounds.
    pub fn getitem<T: Element>(&self, name: &str, indexes: &[i64]) -> NpkResult<ArrayD<T>> {
        let gen = self.handle.gen(name)?;
        gen.array(indexes.len(), |out, err| unsafe { ffi::npk_gen_take(gen.0, indexes.as_ptr(), indexes.len(), out, err) })
    }

    /// The same as bytes, of any dtype.
    pub fn read_rows(&self, name: &str, indexes: &[i64]) -> NpkResult<Vec<u8>> {
        let gen = self.handle.gen(name)?;
        let mut out = vec![0u8; indexes.len() * gen.info().row_bytes as usize];
        call(|err| unsafe { ffi::npk_gen_take(gen.0, indexes.as_ptr(), indexes.len(), out.as_mut_ptr().cast(), err) })?;
        Ok(out)
    }

    /// The rows in blocks of `buffer_size` (at least 1), as they are now: changes during the iteration do not show.
    pub fn stream_load<T: Element>(&self, name: &str, buffer_size: usize) -> NpkResult<StreamIterator<T>> {
        if buffer_size == 0 {
            return Err(NpkError::InvalidArgument("buffer_size is 0".into()));
        }
        Ok(StreamIterator { gen: self.handle.gen(name)?, at: 0, step: buffer_size as u64, kind: PhantomData })
    }

    /// The array as it is now, read from the mapped file.
    pub fn get_array_view(&self, name: &str) -> NpkResult<ArrayView> {
        Ok(ArrayView { gen: self.handle.gen(name)? })
    }

    /// Gives the room of hidden rows back.
    pub fn compact_array(&self, name: &str) -> NpkResult<()> {
        let a = self.handle.array(name)?;
        call(|err| unsafe { ffi::npk_array_compact(a.0, err) })
    }

    /// compact_array() under the name that it has in Python.
    pub fn update(&self, name: &str) -> NpkResult<()> {
        self.compact_array(name)
    }

    pub fn has_array(&self, name: &str) -> bool {
        self.handle.array(name).is_ok()
    }

    /// Sorted by the bytes of the names.
    pub fn list_arrays(&self) -> Vec<String> {
        let (mut list, mut n) = (null_mut(), 0);
        if call(|err| unsafe { ffi::npk_store_list(self.handle.0, &mut list, &mut n, err) }).is_err() {
            panic!("no memory for the list of arrays"); // its only error; the interface has no place for one
        }
        let name = |i| unsafe { CStr::from_ptr(ffi::npk_array_name(*list.add(i), null_mut())) };
        let names = (0..n).map(|i| name(i).to_string_lossy().into_owned()).collect();
        unsafe { ffi::npk_store_list_free(list, n) };
        names
    }

    pub fn get_member_list(&self) -> Vec<String> {
        self.list_arrays()
    }

    pub fn get_array_metadata(&self, name: &str) -> NpkResult<ArrayMetadata> {
        let gen = self.handle.gen(name)?;
        let info = gen.info();
        let dtype =
            DataType::of(info.dtype).ok_or_else(|| NpkError::Corrupted(format!("{name}: dtype {} is unknown", info.dtype)))?;
        Ok(ArrayMetadata {
            name: name.into(),
            shape: gen.shape().iter().map(|&n| n as u64).collect(),
            dtype,
            size_bytes: info.rows * info.row_bytes,
            last_modified: info.mtime_us,
        })
    }

    pub fn get_shape(&self, name: &str) -> NpkResult<Vec<u64>> {
        Ok(self.get_array_metadata(name)?.shape)
    }

    /// Microseconds since 1970 UTC; None when there is no such array.
    pub fn get_modify_time(&self, name: &str) -> Option<u64> {
        Some(self.get_array_metadata(name).ok()?.last_modified)
    }

    /// The k rows best by `metric` ("cosine", "dot", "l2", ...): (row, score), best first. The query has the array's dtype and width.
    pub fn search<T: Element>(&self, name: &str, query: &[T], metric: &str, k: u64) -> NpkResult<Vec<(u64, f64)>> {
        let (gen, metric_name) = (self.handle.gen(name)?, text(metric)?);
        let mut how = ffi::Search { metric: 0, k, rows: null(), threads: 0, progress: None, ctx: null_mut() };
        call(|err| unsafe { ffi::npk_metric_parse(metric_name.as_ptr(), &mut how.metric, err) })?;
        let queries = ffi::Queries { dtype: T::DTYPE as u32, data: query.as_ptr().cast(), nq: 1, dim: query.len() as u64 };
        let mut hits = ffi::Hits { nq: 0, k: 0, row: null_mut(), score: null_mut() };
        call(|err| unsafe { ffi::npk_search(gen.0, &queries, &how, &mut hits, err) })?;
        let found = (0..hits.k).map(|i| unsafe { (*hits.row.add(i), *hits.score.add(i)) }).collect();
        unsafe { ffi::npk_hits_fini(&mut hits) };
        Ok(found)
    }

    /// Carries `changes` out inside a transaction: all of them happen in one step when it returns Ok, else none. Busy: what they
    /// change was changed outside meanwhile.
    pub fn transaction<R>(&self, changes: impl FnOnce(&Transaction) -> NpkResult<R>) -> NpkResult<R> {
        let mut t = null_mut();
        call(|err| unsafe { ffi::npk_txn_begin(&mut t, self.handle.0, err) })?;
        let mut inside = Transaction { txn: t, handle: Handle(unsafe { ffi::npk_txn_store(t) }), outside: PhantomData };
        let result = changes(&inside)?;
        call(|err| unsafe { ffi::npk_txn_commit(t, None, null_mut(), err) })?;
        inside.txn = null_mut(); // committed: nothing is left to be given up
        Ok(result)
    }
}

/// The store inside a transaction. Nobody outside sees what is done here before the commit.
pub struct Transaction<'a> {
    txn: *mut ffi::Txn,
    handle: Handle,
    outside: PhantomData<&'a ParallelIO>,
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        unsafe { ffi::npk_txn_abort(self.txn) }
    }
}

impl Transaction<'_> {
    on_arrays!();

    pub fn save<T: Element, S: Data<Elem = T>, D: Dimension>(&self, name: &str, data: &ArrayBase<S, D>) -> NpkResult<()> {
        self.handle.save(name, data)
    }
}

/// Blocks of rows, in order.
pub struct StreamIterator<T> {
    gen: Gen,
    at: u64,
    step: u64,
    kind: PhantomData<T>,
}

impl<T: Element> Iterator for StreamIterator<T> {
    type Item = NpkResult<ArrayD<T>>;

    fn next(&mut self) -> Option<Self::Item> {
        let n = self.step.min(self.gen.info().rows - self.at);
        if n == 0 {
            return None;
        }
        let block = self.gen.rows(self.at, n);
        self.at += n;
        Some(block)
    }
}

/// An array as it was when the view was taken, without a copy.
pub struct ArrayView {
    gen: Gen,
}

impl ArrayView {
    pub fn shape(&self) -> Vec<usize> {
        self.gen.shape()
    }

    /// The bytes of row `row` and of those that follow it without a gap, right in the mapped file.
    pub fn run(&self, row: u64) -> NpkResult<&[u8]> {
        let (mut bytes, mut n) = (null(), 0);
        call(|err| unsafe { ffi::npk_gen_borrow(self.gen.0, row, &mut bytes, &mut n, err) })?;
        Ok(unsafe { std::slice::from_raw_parts(bytes.cast(), (n * self.gen.info().row_bytes) as usize) })
    }
}
