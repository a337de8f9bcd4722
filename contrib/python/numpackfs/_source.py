"""A reference to a stored array that any process can carry: where it is, what it looks like, and which one it was. It pickles to
some hundred bytes. Whoever wants rows opens the store, or the mount's file, by itself, and keeps it open for the next rows.

An array is *the same* as long as no row of it moved: after an append, or when rows are overwritten in place. A drop, a save over
it or a compaction make another one. Rows of another array are never given: that is a StaleError.
"""

from __future__ import annotations

import collections
import ctypes
import gc
import json
import os
import threading
import time
from pathlib import Path
from typing import Any, Callable, Optional, Tuple, Union

import numpy as np

from . import _lib, _store
from .errors import ArrayNotFoundError, NumPackError, StaleError
from .vector_engine import Result, _pieces, _search_blocks, _search_rows

PathLike = Union[str, Path]

KEEP = 64          # arrays that a process keeps open for the next rows
TRIES = 20         # to look at an array that is changed meanwhile
LAG = 15.0         # seconds until appended rows are seen on another machine: attribute caches, a journal's sealing
_BLOCK = 8 << 20   # bytes that are converted at a time


def component(name: str) -> str:
    """An array's name as a mount shows it, without .npy."""
    out = "".join("%%%02X" % (ord(c) - 0xDC00) if 0xDC80 <= ord(c) <= 0xDCFF
                  else "%%%02X" % ord(c) if c in "/%\x7f" or c < " " or (c == "." and i == 0) else c for i, c in enumerate(name))
    return out or "%"


def is_mount(path: PathLike) -> bool:
    return os.path.exists(os.path.join(path, ".numpack", "version"))


# --- rows that are open -----------------------------------------------------------------------------------------------


class _StoreRows:
    """A generation of an array in a store's directory."""

    def __init__(self, gen: _lib.Gen):
        self.gen, self.dtype, self.shape = gen, gen.dtype, gen.shape

    def rows(self, first: int, end: int) -> np.ndarray:
        return self.gen.rows_at(first, end - first)

    def top_k(self, q: np.ndarray, metric: int, k: int, first: int, end: int, threads: int) -> Result:
        return _search_rows(self.gen, q, metric, k, f"{first}:{end}", threads)


class _MountRows:
    """An array's file in a mount, mapped."""

    def __init__(self, mapped: np.ndarray):
        self.mapped, self.dtype, self.shape = mapped, mapped.dtype, mapped.shape

    def rows(self, first: int, end: int) -> np.ndarray:
        return self.mapped[first:end]

    top_k: Optional[Callable] = None


# --- which one it is --------------------------------------------------------------------------------------------------


class _Statx(ctypes.Structure):
    """struct statx as far as the time of birth; see statx(2)."""

    _fields_ = [("mask", ctypes.c_uint32), ("_before", ctypes.c_uint32 * 7), ("ino", ctypes.c_uint64), ("_sizes", ctypes.c_uint64 * 3),
                ("_atime", ctypes.c_uint64 * 2), ("btime_s", ctypes.c_int64), ("btime_ns", ctypes.c_uint32),
                ("_after", ctypes.c_uint8 * 164)]


_libc = ctypes.CDLL(None, use_errno=True)
_BTIME = 0x800


def _file_id(path: str) -> Optional[Tuple[int, int, int]]:
    """Inode and time of birth, which a file keeps when it is renamed or grows; the same on every machine. A filesystem without
    times of birth gives 0 for them. None: there is no such file."""
    got = _Statx()
    try:
        ino = os.stat(path).st_ino
    except FileNotFoundError:
        return None
    if hasattr(_libc, "statx") and _libc.statx(-100, os.fsencode(path), 0, _BTIME, ctypes.byref(got)) == 0 and got.mask & _BTIME:
        return ino, got.btime_s, got.btime_ns
    return ino, 0, 0


def _boot() -> str:
    with open("/proc/sys/kernel/random/boot_id") as f:
        return f.read().strip()


def _unstable(path: PathLike, name: str) -> NumPackError:
    return NumPackError(f"{path}: array {name} is changed faster than it can be looked at")


def _find_in_store(path: str, name: str) -> tuple:
    with _store.reading(path) as store:
        for _ in range(TRIES):
            store.refresh()
            info = store.info(name)
            if info["state"] != "ok":
                store.gen(name)      # raises what is wrong with it
            file = os.path.join(path, info["data_file"])
            before = _file_id(file)
            gen = store.gen(name)
            if before is not None and gen.number == info["generation"] and _file_id(file) == before:
                return _StoreRows(gen), ("store", before, info["deleted"]), info["mtime_us"]
        raise _unstable(path, name)


def _map(file: Any) -> np.ndarray:
    if np.lib.format.read_magic(file) != (1, 0):
        raise NumPackError(f"{file.name}: no .npy file of version 1.0")
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    return np.asarray(np.memmap(file, dtype, "r", file.tell(), shape))


def _find_in_mount(path: str, name: str) -> tuple:
    file = os.path.join(path, component(name) + ".npy")
    about = os.path.join(path, ".numpack", "arrays", component(name), "info")
    since = os.stat(os.path.join(path, ".numpack", "version"))
    for _ in range(TRIES):
        try:
            with open(file, "rb") as f:
                st = os.fstat(f.fileno())
                mapped = _map(f)
            with open(about) as f:
                info = json.load(f)
        except FileNotFoundError:
            raise ArrayNotFoundError(name) from None
        if info["generation"] == st.st_ino:      # the mount's inode numbers are its generations'
            mount = (_boot(), st.st_dev, since.st_mtime_ns)
            return _MountRows(mapped), ("mount", mount, st.st_ino, info["deleted"], info["mtime_us"]), info["mtime_us"]
    raise _unstable(path, name)


def _same(a: tuple, b: tuple) -> bool:
    """Whether rows of one are rows of the other. Two mounts number their generations each for itself: there, only an array
    that did not change at all is known to be the same."""
    if a[0] == "mount" and b[0] == "mount":
        return a[1:4] == b[1:4] if a[1] == b[1] else a[3:] == b[3:]
    return a == b


def _find(path: str, name: str) -> tuple:
    _lib.encode(name)
    return _find_in_mount(path, name) if is_mount(path) else _find_in_store(path, name)


# --- the reference ----------------------------------------------------------------------------------------------------

_kept: "collections.OrderedDict[tuple, Any]" = collections.OrderedDict()
_kept_lock = threading.Lock()


def _after_fork() -> None:
    global _kept_lock
    _kept_lock = threading.Lock()
    _kept.clear()


os.register_at_fork(after_in_child=_after_fork)


def forget() -> None:
    """Gives up what this process keeps open for the next rows, so that a mount can be unmounted: in a cluster,
    client.run(numpackfs.dask.forget). Arrays that somebody still has stay as they are, and keep their mount busy."""
    with _kept_lock:
        _kept.clear()
    gc.collect()


class Source:
    """The array `name` of the store, or of the mount, at `path`, as it is now. `shape` is logical, (rows, ...).

    ValueError: there is neither a store nor a mount; KeyError: no such array; CorruptError: it is damaged.
    """

    __slots__ = ("path", "name", "dtype", "shape", "identity", "mtime_us")

    def __init__(self, path: PathLike, name: str):
        self.path, self.name = os.path.abspath(path), name
        got, self.identity, self.mtime_us = _find(self.path, name)
        self.dtype, self.shape = got.dtype, got.shape
        self._keep(got)

    def __repr__(self) -> str:
        return f"Source({self.path!r}, {self.name!r}, shape={self.shape}, dtype={self.dtype})"

    def __dask_tokenize__(self) -> tuple:
        return ("numpackfs", self.path, self.name, self.dtype.str, self.shape, self.identity, self.mtime_us)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.shape[1:], dtype=object)) * self.dtype.itemsize

    def _key(self) -> tuple:
        return self.path, self.name, self.identity

    def _keep(self, got: Any) -> None:
        with _kept_lock:
            old = _kept.get(self._key())
            if old is None or old.shape[0] < got.shape[0]:
                _kept[self._key()] = got
            _kept.move_to_end(self._key())
            while len(_kept) > KEEP:
                _kept.popitem(last=False)

    def _open(self) -> Any:
        with _kept_lock:
            got = _kept.get(self._key())
        if got is not None and got.shape[0] >= self.shape[0]:
            return got
        deadline = time.monotonic() + LAG
        while True:
            got, identity, _ = _find(self.path, self.name)
            if not _same(identity, self.identity) or (got.dtype, got.shape[1:]) != (self.dtype, self.shape[1:]):
                got = None      # a traceback that somebody keeps must not keep the map
                raise StaleError(f"{self.path}: array {self.name} is not the one any more that was asked for: rows were dropped, or "
                                 "it was saved anew or compacted; open it again")
            if got.shape[0] >= self.shape[0]:
                break
            if time.monotonic() > deadline:
                rows, got = got.shape[0], None
                raise StaleError(f"{self.path}: array {self.name} has {rows} rows here, not {self.shape[0]}")
            time.sleep(0.1)
        self._keep(got)
        return got

    def rows(self, first: int, end: int) -> np.ndarray:
        """Rows first .. end - 1, read-only; over the mapping, without a copy, where they lie together. StaleError."""
        return self._open().rows(first, end)

    def __getitem__(self, key: Any) -> np.ndarray:
        """What dask asks for: slices and ints, of which the first is of rows."""
        key = key if isinstance(key, tuple) else (key,)
        first, rest = key[0], key[1:]
        if not isinstance(first, slice):
            return self.rows(first, first + 1)[(0,) + rest]
        rows = range(*first.indices(self.shape[0]))
        if len(rows) == 0:
            return self.rows(0, 0)[(slice(None),) + rest]
        low, high = min(rows[0], rows[-1]), max(rows[0], rows[-1])
        return self.rows(low, high + 1)[::rows.step][(slice(None),) + rest]

    def top_k(self, q: np.ndarray, metric: int, k: int, first: int, end: int, threads: int) -> Result:
        """The k best of rows first .. end - 1 for the queries `q`, (dim,) or (nq, dim), in a dtype that _match() gave: flat
        arrays, one query after the other, the rows counted from row 0 of the array."""
        opened = self._open()
        if q.dtype == self.dtype and opened.top_k is not None:
            return opened.top_k(q, metric, k, first, end, threads)
        n = max(1, _BLOCK // max(1, self.row_bytes))
        blocks = (piece for at in range(first, end, n) for piece in _pieces(opened.rows(at, min(end, at + n)), q.dtype))
        rows, scores = _search_blocks(q, blocks, self.shape[1], metric, min(k, end - first))
        return rows + np.uint64(first), scores
