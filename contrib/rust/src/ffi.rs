//! What is used of numpack.h. Declarations only: their meaning, errors and lifetimes are described there.

use std::ffi::{c_char, c_int, c_uint, c_void};

pub const ERR_MAX: usize = 512;
pub const MAX_NDIM: usize = 32;
pub const RDWR: c_uint = 2;
pub const CREATE: c_uint = 4;

#[repr(C)]
pub struct Err {
    pub code: c_int,
    pub msg: [c_char; ERR_MAX],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Shape {
    pub ndim: c_uint,
    pub dim: [u64; MAX_NDIM],
}

/// The first fields of struct npk_gen_info, which is only ever borrowed.
#[repr(C)]
pub struct GenInfo {
    pub number: u64,
    pub dtype: c_uint,
    pub shape: Shape,
    pub rows: u64,
    pub slots: u64,
    pub row_bytes: u64,
    pub mtime_us: u64,
}

#[repr(C)]
pub struct Queries {
    pub dtype: c_uint,
    pub data: *const c_void,
    pub nq: usize,
    pub dim: u64,
}

#[repr(C)]
pub struct Hits {
    pub nq: usize,
    pub k: usize,
    pub row: *mut u64,
    pub score: *mut f64,
}

#[repr(C)]
pub struct Search {
    pub metric: c_int,
    pub k: u64,
    pub rows: *const c_char,
    pub threads: c_uint,
    pub progress: Option<extern "C" fn(*mut c_void, u64, u64) -> bool>,
    pub ctx: *mut c_void,
}

macro_rules! opaque {
    ($($name:ident),*) => { $(#[repr(C)] pub struct $name { _private: [u8; 0] })* };
}
opaque!(Store, Array, Gen, Txn);

pub type ChangeFn = extern "C" fn(*mut c_void, *mut Array, c_int);

extern "C" {
    pub fn npk_store_open(out: *mut *mut Store, path: *const c_char, flags: c_uint, err: *mut Err) -> c_int;
    pub fn npk_store_close(s: *mut Store);
    pub fn npk_store_sync(s: *mut Store, err: *mut Err) -> c_int;
    pub fn npk_store_refresh(s: *mut Store, call: Option<ChangeFn>, ctx: *mut c_void, err: *mut Err) -> c_int;
    pub fn npk_store_list(s: *mut Store, out: *mut *mut *mut Array, n: *mut usize, err: *mut Err) -> c_int;
    pub fn npk_store_list_free(list: *mut *mut Array, n: usize);
    pub fn npk_store_save(
        s: *mut Store,
        name: *const c_char,
        dtype: c_uint,
        shape: *const Shape,
        data: *const c_void,
        err: *mut Err,
    ) -> c_int;
    pub fn npk_store_remove(s: *mut Store, name: *const c_char, err: *mut Err) -> c_int;
    pub fn npk_store_clone(s: *mut Store, from: *const c_char, to: *const c_char, err: *mut Err) -> c_int;
    pub fn npk_store_reset(s: *mut Store, err: *mut Err) -> c_int;

    pub fn npk_array_get(out: *mut *mut Array, s: *mut Store, name: *const c_char, err: *mut Err) -> c_int;
    pub fn npk_array_put(a: *mut Array);
    pub fn npk_array_name(a: *const Array, len: *mut usize) -> *const c_char;
    pub fn npk_array_append(a: *mut Array, rows: *const c_void, nrows: u64, err: *mut Err) -> c_int;
    pub fn npk_array_drop_rows(a: *mut Array, rows: *const i64, n: usize, dropped: *mut u64, err: *mut Err) -> c_int;
    pub fn npk_array_replace(
        a: *mut Array,
        rows: *const i64,
        n: usize,
        data: *const c_void,
        flags: c_uint,
        err: *mut Err,
    ) -> c_int;
    pub fn npk_array_compact(a: *mut Array, err: *mut Err) -> c_int;

    pub fn npk_gen_get(out: *mut *mut Gen, a: *mut Array, err: *mut Err) -> c_int;
    pub fn npk_gen_put(g: *mut Gen);
    pub fn npk_gen_info(g: *const Gen) -> *const GenInfo;
    pub fn npk_gen_read_rows(g: *mut Gen, first: u64, nrows: u64, out: *mut c_void, err: *mut Err) -> c_int;
    pub fn npk_gen_take(g: *mut Gen, rows: *const i64, n: usize, out: *mut c_void, err: *mut Err) -> c_int;
    pub fn npk_gen_borrow(g: *mut Gen, row: u64, out: *mut *const c_void, nrows: *mut u64, err: *mut Err) -> c_int;

    pub fn npk_metric_parse(name: *const c_char, out: *mut c_int, err: *mut Err) -> c_int;
    pub fn npk_search(g: *mut Gen, q: *const Queries, how: *const Search, out: *mut Hits, err: *mut Err) -> c_int;
    pub fn npk_hits_fini(h: *mut Hits);

    pub fn npk_txn_begin(out: *mut *mut Txn, s: *mut Store, err: *mut Err) -> c_int;
    pub fn npk_txn_store(t: *const Txn) -> *mut Store;
    pub fn npk_txn_commit(t: *mut Txn, call: Option<ChangeFn>, ctx: *mut c_void, err: *mut Err) -> c_int;
    pub fn npk_txn_abort(t: *mut Txn);
}
