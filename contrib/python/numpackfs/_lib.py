"""libnumpack through ctypes, which releases the GIL for every call. Nothing here knows about NumPack's Python interface."""

import ctypes
import json
import os
import pathlib
import threading
import weakref
from ctypes import POINTER, byref, c_bool, c_char, c_char_p, c_double, c_int, c_int64, c_size_t, c_uint, c_uint64, c_void_p

import numpy as np

from .errors import from_code

DTYPES = tuple(np.dtype(name) for name in (
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "complex64",
    "complex128"))
CODES = {dtype: code for code, dtype in enumerate(DTYPES)}
MAX_NDIM = 32
SIMILARITIES = frozenset((0, 1, 2))      # of enum npk_metric: cosine, dot, inner
RDONLY, RDWR, CREATE = 1, 2, 4
REPLACE_ATOMIC = 1


class Err(ctypes.Structure):
    _fields_ = [("code", c_int), ("msg", c_char * 512)]


class Shape(ctypes.Structure):
    _fields_ = [("ndim", c_uint), ("dim", c_uint64 * MAX_NDIM)]

    def tuple(self):
        return tuple(self.dim[:self.ndim])


class Text(ctypes.Structure):
    _fields_ = [("p", c_void_p), ("len", c_size_t), ("cap", c_size_t), ("bad", c_bool)]


class GenInfo(ctypes.Structure):
    _fields_ = [("number", c_uint64), ("dtype", c_uint), ("shape", Shape), ("rows", c_uint64), ("slots", c_uint64),
                ("row_bytes", c_uint64), ("mtime_us", c_uint64), ("blocks", c_uint64), ("mode", c_uint), ("uid", c_uint),
                ("gid", c_uint)]


class StoreInfo(ctypes.Structure):
    _fields_ = [("narrays", c_uint64), ("read_only", c_bool), ("why", c_char * 512), ("warning", c_char * 512)]


class Queries(ctypes.Structure):
    _fields_ = [("dtype", c_uint), ("data", c_void_p), ("nq", c_size_t), ("dim", c_uint64)]


class Hits(ctypes.Structure):
    _fields_ = [("nq", c_size_t), ("k", c_size_t), ("row", POINTER(c_uint64)), ("score", POINTER(c_double))]


Progress = ctypes.CFUNCTYPE(c_bool, c_void_p, c_uint64, c_uint64)


class Search(ctypes.Structure):
    _fields_ = [("metric", c_int), ("k", c_uint64), ("rows", c_char_p), ("threads", c_uint), ("progress", Progress),
                ("ctx", c_void_p)]


def _load():
    named = os.environ.get("LIBNUMPACK")
    bundled = pathlib.Path(__file__).with_name("libnumpack.so.0")
    for path in ([named] if named else [str(bundled)] if bundled.exists() else ["libnumpack.so.0"]):
        try:
            return ctypes.CDLL(path)
        except OSError as e:
            raise ImportError(f"libnumpack cannot be loaded from {path}: {e}") from e


lib = _load()
P, PP, E = c_void_p, POINTER(c_void_p), POINTER(Err)

# name: (argument types without the error; None for a function that cannot fail, result type)
_CALLS = {
    "npk_store_open": [PP, c_char_p, c_uint, E],
    "npk_store_list": [P, POINTER(PP), POINTER(c_size_t), E],
    "npk_store_refresh": [P, P, P, E],
    "npk_store_metadata_json": [P, POINTER(Text), E],
    "npk_array_get_n": [PP, P, c_char_p, c_size_t, E],
    "npk_array_info_json": [P, POINTER(Text), E],
    "npk_gen_get": [PP, P, E],
    "npk_gen_map": [P, E],
    "npk_gen_read_rows": [P, c_uint64, c_uint64, P, E],
    "npk_gen_read_step": [P, c_uint64, c_int64, c_uint64, P, E],
    "npk_gen_take": [P, P, c_size_t, P, E],
    "npk_gen_borrow": [P, c_uint64, PP, POINTER(c_uint64), E],
    "npk_view_open": [PP, P, c_char_p, E],
    "npk_view_pwrite": [P, P, c_uint64, P, c_size_t, E],
    "npk_store_set_owner": [P, c_char_p, E],
    "npk_store_lock": [P, E],
    "npk_store_fsync": [P, E],
    "npk_store_sync": [P, E],
    "npk_store_finish": [P, E],
    "npk_store_save": [P, c_char_p, c_uint, POINTER(Shape), P, E],
    "npk_save_open": [PP, P, c_uint, POINTER(Shape), E],
    "npk_save_write": [P, P, c_size_t, E],
    "npk_save_commit": [P, c_char_p, E],
    "npk_array_append": [P, P, c_uint64, E],
    "npk_array_drop_rows": [P, P, c_size_t, POINTER(c_uint64), E],
    "npk_array_drop": [P, c_char_p, POINTER(c_uint64), E],
    "npk_array_replace": [P, P, c_size_t, P, c_uint, E],
    "npk_array_replace_range": [P, c_uint64, c_uint64, P, c_uint, E],
    "npk_array_compact": [P, E],
    "npk_array_set_mtime": [P, c_uint64, E],
    "npk_store_remove": [P, c_char_p, E],
    "npk_store_clone": [P, c_char_p, c_char_p, E],
    "npk_store_rename": [P, c_char_p, c_char_p, c_uint, E],
    "npk_store_reset": [P, E],
    "npk_txn_begin": [PP, P, E],
    "npk_txn_commit": [P, P, P, E],
    "npk_metric_parse": [c_char_p, POINTER(c_int), E],
    "npk_search": [P, POINTER(Queries), POINTER(Search), POINTER(Hits), E],
    "npk_scores": [P, POINTER(Queries), c_int, c_uint64, c_uint64, P, E],
    "npk_pair": [c_int, c_uint, P, P, c_uint64, POINTER(c_double), E],
    "npk_topk_open": [PP, POINTER(Queries), c_int, c_uint64, E],
    "npk_topk_feed": [P, P, c_uint64, c_uint64, E],
    "npk_topk_result": [P, POINTER(Hits), E],
}
_PLAIN = {
    "npk_store_close": ([P], None),
    "npk_store_info": ([P, POINTER(StoreInfo)], None),
    "npk_store_list_free": ([PP, c_size_t], None),
    "npk_store_lock_timeout": ([P, c_uint], None),
    "npk_array_put": ([P], None),
    "npk_array_name": ([P, POINTER(c_size_t)], c_void_p),
    "npk_gen_ref": ([P], P),
    "npk_gen_put": ([P], None),
    "npk_gen_info": ([P], POINTER(GenInfo)),
    "npk_view_close": ([P], None),
    "npk_save_abort": ([P], None),
    "npk_txn_store": ([P], P),
    "npk_txn_abort": ([P], None),
    "npk_hits_fini": ([POINTER(Hits)], None),
    "npk_topk_close": ([P], None),
    "npk_text_fini": ([POINTER(Text)], None),
    "npk_version": ([], c_char_p),
}
for _name, _args in _CALLS.items():
    _f = getattr(lib, _name)
    _f.argtypes, _f.restype = _args, c_int
for _name, (_args, _res) in _PLAIN.items():
    _f = getattr(lib, _name)
    _f.argtypes, _f.restype = _args, _res

_tls = threading.local()


def err():
    """This thread's struct npk_err, to be passed by reference."""
    try:
        return _tls.ref
    except AttributeError:
        _tls.err = Err()
        _tls.ref = byref(_tls.err)
        return _tls.ref


def fail(rc):
    """Raises what the thread's last error says."""
    e = _tls.err
    raise from_code(-rc, e.msg.decode("utf-8", "replace") or os.strerror(-rc))


def check(rc):
    if rc < 0:
        fail(rc)


def encode(name):
    """An array's name as the bytes on disk; bytes that are no UTF-8 come and go as surrogates."""
    if not isinstance(name, str):
        raise TypeError(f"an array's name is a str, not {type(name).__name__}")
    return name.encode("utf-8", "surrogateescape")


def json_of(call, *args):
    text = Text()
    try:
        check(call(*args, byref(text), err()))
        return json.loads(ctypes.string_at(text.p, text.len).decode("utf-8", "surrogateescape"))
    finally:
        lib.npk_text_fini(byref(text))


def shape_struct(shape):
    out = Shape()
    out.ndim = len(shape)
    for i, n in enumerate(shape):
        out.dim[i] = n
    return out


class _Mapped:
    """What numpy asks for a pointer; the array that it makes keeps this, and this keeps the generation."""

    __slots__ = ("__array_interface__", "gen")

    def __init__(self, gen, address, shape):
        self.gen = gen
        self.__array_interface__ = {"version": 3, "shape": shape, "typestr": gen.dtype.str, "data": (address, True)}


class Gen:
    """One generation of an array: rows that never move or go away.

    `shape` is logical, (rows, ...); `dtype` numpy's; every method may be called from any thread.
    """

    __slots__ = ("ptr", "dtype", "shape", "rows", "row_bytes", "inner", "number", "_mapped", "_pid", "__weakref__")

    def __init__(self, ptr):
        self.ptr, self._pid, self._mapped = ptr, os.getpid(), None
        info = lib.npk_gen_info(ptr).contents
        self.dtype = DTYPES[info.dtype]
        self.shape = info.shape.tuple()
        self.inner = self.shape[1:]
        self.rows, self.row_bytes, self.number = info.rows, info.row_bytes, info.number

    def __del__(self):
        if self._pid == os.getpid():     # a forked child leaves the parent's library alone
            lib.npk_gen_put(self.ptr)

    @property
    def mapped(self):
        """All rows as a read-only array over the mapping, without a copy; None where they do not lie together."""
        got = self._mapped() if self._mapped is not None else None
        if got is not None:
            return got
        if self.rows == 0 or self.row_bytes == 0:
            out = np.empty(self.shape, self.dtype)
            out.flags.writeable = False
            return out
        address, together = c_void_p(), c_uint64()
        check(lib.npk_gen_borrow(self.ptr, 0, byref(address), byref(together), err()))
        if together.value < self.rows:
            return None
        out = np.asarray(_Mapped(self, address.value, self.shape))
        self._mapped = weakref.ref(out)
        return out

    def rows_at(self, first, n):
        """Rows first .. first + n - 1, read-only: over the mapping where they lie together, else a copy."""
        if n > 0 and self.row_bytes > 0:
            address, together = c_void_p(), c_uint64()
            check(lib.npk_gen_borrow(self.ptr, first, byref(address), byref(together), err()))
            if together.value >= n:
                return np.asarray(_Mapped(self, address.value, (n,) + self.inner))
        out = self.read(first, n)
        out.flags.writeable = False
        return out

    def read(self, first, n):
        """Rows first .. first + n - 1 as a new array (n, ...)."""
        out = np.empty((n,) + self.inner, self.dtype)
        rc = lib.npk_gen_read_rows(self.ptr, first, n, out.ctypes.data, err())
        if rc < 0:
            fail(rc)
        return out

    def read_all(self):
        """Everything as a new array of `shape`; also of 0 dimensions."""
        out = np.empty(self.shape, self.dtype)
        check(lib.npk_gen_read_rows(self.ptr, 0, self.rows, out.ctypes.data, err()))
        return out

    def read_into(self, first, out):
        """Rows first .. into the C-contiguous array `out`."""
        check(lib.npk_gen_read_rows(self.ptr, first, len(out), out.ctypes.data, err()))
        return out

    def step(self, first, step, n):
        """Rows first, first + step, ..., n of them, as a new array."""
        out = np.empty((n,) + self.inner, self.dtype)
        check(lib.npk_gen_read_step(self.ptr, first, step, n, out.ctypes.data, err()))
        return out

    def take(self, rows):
        """The listed rows (1-D int64, negative ones from the end) in the list's order."""
        n = len(rows)
        out = np.empty((n,) + self.inner, self.dtype)
        rc = lib.npk_gen_take(self.ptr, rows.ctypes.data, n, out.ctypes.data, err())
        if rc < 0:
            fail(rc)
        return out
