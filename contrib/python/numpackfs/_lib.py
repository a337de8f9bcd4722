"""libnumpack through ctypes, which releases the GIL for every call. Nothing here knows about NumPack's Python interface."""

import ctypes
import json
import os
import pathlib
import struct
import threading
from ctypes import POINTER, byref, c_bool, c_char, c_char_p, c_double, c_int, c_int64, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any

import numpy as np

from ._speed import address, fast
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
_CALLS: dict = {
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
_PLAIN: dict = {
    "npk_store_close": ([P], None),
    "npk_store_info": ([P, POINTER(StoreInfo)], None),
    "npk_store_list_free": ([PP, c_size_t], None),
    "npk_store_lock_timeout": ([P, c_uint], None),
    "npk_array_put": ([P], None),
    "npk_array_name": ([P, POINTER(c_size_t)], c_void_p),
    "npk_gen_ref": ([P], P),
    "npk_gen_put": ([P], None),
    "npk_gen_info": ([P], P),
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

if fast is not None:
    fast.set_library(ctypes.cast(lib.npk_gen_take, c_void_p).value)

# struct npk_gen_info as far as row_bytes: number, dtype, ndim, dim, rows, slots, row_bytes. At once, since ctypes takes its time for
# each field.
_GEN_INFO = struct.Struct(f"@QI4xI4x{MAX_NDIM}Q3Q")
assert _GEN_INFO.size == GenInfo.mtime_us.offset

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

    __slots__ = ("__array_interface__", "ptr", "_pid")

    def __init__(self, gen, address, shape):
        self.ptr, self._pid = lib.npk_gen_ref(gen.ptr), gen._pid
        self.__array_interface__ = {"version": 3, "shape": shape, "typestr": gen.dtype.str, "data": (address, True)}

    def __del__(self):
        if self._pid == os.getpid():
            lib.npk_gen_put(self.ptr)


class Array:
    """A named array of the library, which follows its changes. `dtype`, `ndim` and `inner` (the shape of a row) are known once
    `gen`, the current generation, was; a change of rows leaves them and clears `gen`."""

    __slots__ = ("ptr", "gen", "dtype", "ndim", "inner", "_pid")

    def __init__(self, ptr):
        self.ptr, self._pid, self.gen, self.dtype = ptr, os.getpid(), None, None

    def __del__(self):
        if self._pid == os.getpid():     # a forked child leaves the parent's library alone
            lib.npk_array_put(self.ptr)


_INT64 = np.dtype(np.int64)
SMALL = 1 << 18      # bytes up to which numpy copies as fast from the mapping as the library


class Gen:
    """One generation of an array: rows that never move or go away.

    `shape` is logical, (rows, ...); `dtype` numpy's; every method may be called from any thread.
    """

    __slots__ = ("ptr", "dtype", "shape", "ndim", "rows", "row_bytes", "inner", "number", "_whole", "_pid", "__weakref__")

    def __init__(self, ptr):
        self.ptr, self._pid, self._whole = ptr, os.getpid(), None
        info = _GEN_INFO.unpack(ctypes.string_at(lib.npk_gen_info(ptr), _GEN_INFO.size))
        self.number, self.ndim = info[0], info[2]
        self.dtype = DTYPES[info[1]]
        self.shape = info[3:3 + self.ndim]
        self.inner = self.shape[1:]
        self.rows, self.row_bytes = info[-3], info[-1]

    def __del__(self):
        if self._pid == os.getpid():
            lib.npk_gen_put(self.ptr)

    def _look(self):
        """All rows as a read-only array over the mapping, without a copy; False where they do not lie together. For ourselves:
        it must not be given away, for its owner could reshape it."""
        out: Any
        if self.rows == 0 or self.row_bytes == 0:
            out = np.empty(self.shape, self.dtype)
            out.flags.writeable = False
        else:
            where, together = c_void_p(), c_uint64()
            check(lib.npk_gen_borrow(self.ptr, 0, byref(where), byref(together), err()))
            out = np.asarray(_Mapped(self, where.value, self.shape)) if together.value >= self.rows else False
        self._whole = out
        return out

    @property
    def mapped(self):
        """All rows as a read-only array over the mapping, without a copy; None where they do not lie together."""
        whole = self._whole if self._whole is not None else self._look()
        return None if whole is False else whole.view()

    def rows_at(self, first, n):
        """Rows first .. first + n - 1, read-only: over the mapping where they lie together, else a copy."""
        if n > 0 and self.row_bytes > 0:
            where, together = c_void_p(), c_uint64()
            check(lib.npk_gen_borrow(self.ptr, first, byref(where), byref(together), err()))
            if together.value >= n:
                return np.asarray(_Mapped(self, where.value, (n,) + self.inner))
        out = self.read(first, n)
        out.flags.writeable = False
        return out

    def read(self, first, n):
        """Rows first .. first + n - 1 as a new array (n, ...)."""
        out = np.empty((n,) + self.inner, self.dtype)
        rc = lib.npk_gen_read_rows(self.ptr, first, n, address(out), err())
        if rc < 0:
            fail(rc)
        return out

    def read_all(self):
        """Everything as a new array of `shape`; also of 0 dimensions."""
        out = np.empty(self.shape, self.dtype)
        check(lib.npk_gen_read_rows(self.ptr, 0, self.rows, address(out), err()))
        return out

    def read_into(self, first, out):
        """Rows first .. into the C-contiguous array `out`."""
        check(lib.npk_gen_read_rows(self.ptr, first, len(out), address(out), err()))
        return out

    def step(self, first, step, n):
        """Rows first, first + step, ..., n of them, as a new array."""
        out = np.empty((n,) + self.inner, self.dtype)
        check(lib.npk_gen_read_step(self.ptr, first, step, n, address(out), err()))
        return out

    def take(self, rows):
        """The listed rows (1-D int64, negative ones from the end) in the list's order."""
        n = len(rows)
        out = np.empty((n,) + self.inner, self.dtype)
        rc = lib.npk_gen_take(self.ptr, address(rows), n, address(out), err())
        if rc < 0:
            fail(rc)
        return out

    def quick(self, index):
        """Rows for the indexes that most callers give: an int, whose row comes without the leading axis, a slice of a small part,
        a list or an int64 array of ints. None: for this one the long way has to be taken, and says what is wrong with it."""
        kind = type(index)
        if kind is list:
            if fast is not None and self.ndim:
                out = np.empty((len(index),) + self.inner, self.dtype)
                if fast.take(self.ptr, self.row_bytes, index, out):
                    return out
            return None
        if kind is int:
            whole = self._whole if self._whole is not None else self._look()
            if whole is not False and self.ndim and -self.rows <= index < self.rows:
                return whole[index].copy()
        elif kind is slice:
            whole = self._whole if self._whole is not None else self._look()
            if whole is not False and self.ndim:
                part = whole[index]
                if part.nbytes <= SMALL:
                    return part.copy()
        elif kind is np.ndarray and index.dtype == _INT64 and index.ndim == 1 and self.ndim:
            flags = index.flags
            if flags.c_contiguous and flags.aligned:
                out = np.empty((len(index),) + self.inner, self.dtype)
                if lib.npk_gen_take(self.ptr, address(index), len(index), address(out), err()) == 0:
                    return out
        return None
