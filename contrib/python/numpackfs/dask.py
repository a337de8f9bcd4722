"""Arrays, searches and appends over many processes, with Dask.

    import numpackfs.dask as npd

    x = npd.array("data.npk", "x")                             # a dask.array.Array; no row was read
    x.mean(axis=0).compute()
    rows, scores = npd.top_k(query, "data.npk", "x", "cosine", k=10)
    everything = npd.Dataset("parts/*.npk", "x")               # one array out of many stores
    stores, rows, scores = everything.top_k(query, "cosine", k=10)
    npd.append(x * 2, "/mnt/data", "y")                        # each worker appends its blocks through the mount

A path is a store's directory or the mountpoint of one, and must lead to it on every worker. Graphs hold paths and row numbers,
never rows: each worker opens the store, or the mount's file, and keeps it open; a chunk is a read-only array over the mapping,
without a copy, unless deleted rows lie in it.

What a graph sees when the array changes: the rows that were there when the graph was made. Rows appended since are not among
them, values overwritten in place show. When rows were dropped, or the array was saved anew or compacted, a worker that has it
open goes on with the rows it knows, and one that has not raises StaleError: there is never a mixture. Make the graph again, it
costs one look at the store. Through a mount that follows a store (`-o ro`), every change of the array makes a graph stale.
"""

from __future__ import annotations

import glob
import io
import json
import os
import uuid
from pathlib import Path
from typing import Any, Iterable, List, Optional, Tuple, Union

import numpy as np

from . import _lib
from ._lib import SIMILARITIES, check, err
from ._source import Source, component, forget, is_mount
from .errors import ArrayNotFoundError, NumPackError, StaleError
from .io.common import DependencyError, need
from .vector_engine import Result, _k, _match, _metric, _queries, _vectors, _width

dask = need("dask", "dask")
da = need("dask.array", "dask")

__all__ = ["array", "top_k", "append", "forget", "Dataset", "DependencyError", "StaleError"]

PathLike = Union[str, Path]
Chunk = Union[int, str, None]

_FAN_IN = 16             # results that one task merges
_WRITE = 1 << 20         # bytes of one write


def _spans(source: Source, chunk_rows: Optional[int], chunk_bytes: Chunk) -> List[int]:
    """How many rows each chunk has."""
    rows = source.shape[0]
    if chunk_rows is None:
        wanted = dask.config.get("array.chunk-size") if chunk_bytes is None else chunk_bytes
        chunk_rows = max(1, dask.utils.parse_bytes(wanted) // max(1, source.row_bytes))
    elif chunk_bytes is not None:
        raise ValueError("chunk_rows and chunk_bytes are two ways to say the same")
    if chunk_rows < 1:
        raise ValueError(f"chunk_rows is {chunk_rows}, not at least 1")
    full, rest = divmod(rows, chunk_rows)
    return [chunk_rows] * full + [rest] * (rest > 0 or rows == 0)


def _array_of(source: Source, chunk_rows: Optional[int], chunk_bytes: Chunk) -> Any:
    chunks = (tuple(_spans(source, chunk_rows, chunk_bytes)),) + tuple((n,) for n in source.shape[1:])
    return da.from_array(source, chunks=chunks, lock=False, fancy=False, inline_array=True,
                         meta=np.empty((0,) * source.ndim, source.dtype))


def array(path: PathLike, name: str, *, chunk_rows: Optional[int] = None, chunk_bytes: Chunk = None) -> Any:
    """The array `name` of the store or mount at `path` as a dask.array.Array of its shape and dtype, deleted rows skipped.

    Chunks are ranges of whole rows: `chunk_rows` of them, or as many as make `chunk_bytes` (a number, or a text as "64MiB");
    Dask's own setting, array.chunk-size, when neither is given.

    ValueError: no store, or chunks of less than a row; KeyError: no such array; CorruptError: it is damaged.
    """
    return _array_of(Source(path, name), chunk_rows, chunk_bytes)


# --- search -----------------------------------------------------------------------------------------------------------


def _check_query(q: np.ndarray, metric: int) -> None:
    """Raises now what every worker would raise."""
    top = _lib.c_void_p()
    check(_lib.lib.npk_topk_open(_lib.byref(top), _lib.byref(_queries(q, q.shape[-1])), metric, 1, err()))
    _lib.lib.npk_topk_close(top)


def _part(q: np.ndarray, source: Source, base: int, metric: int, k: int, first: int, end: int, threads: int) -> Result:
    """A chunk's best, (nq, m) each; `base` is the number of the array's row 0."""
    rows, scores = source.top_k(q, metric, k, first, end, threads)
    nq = len(q) if q.ndim == 2 else 1
    return rows.reshape(nq, -1) + np.uint64(base), scores.reshape(nq, -1)


def _best(parts: List[Result], k: int, similarity: bool) -> Result:
    """The k best of several parts, in the order of one search: equal scores by the lower row, NaN last."""
    rows, scores = (np.concatenate([p[i] for p in parts], axis=1) for i in (0, 1))
    order = np.lexsort((rows, -scores if similarity else scores), axis=-1)[:, :k]      # numpy sorts NaN last, also behind -
    return np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)


def _flat(result: Result) -> Result:
    return result[0].reshape(-1), result[1].reshape(-1)


def _search(query: np.ndarray, sources: List[Source], metric: str, k: int, chunk_rows: Optional[int], chunk_bytes: Chunk,
            threads: int) -> Any:
    """A Delayed of flat (rows, scores), rows counted through all sources."""
    m, k = _metric(metric), _k(k)
    q = np.asarray(query)
    q = _vectors(q, 2 if q.ndim == 2 else 1, "query")
    if threads < 1:
        raise ValueError(f"threads is {threads}, not at least 1")
    for source in sources:
        if source.ndim != 2:
            raise ValueError(f"array {source.name} of {source.path} has {source.ndim} dimensions, not 2")
    _width(q, sources[0].shape[1])
    none = np.zeros(0, np.uint64), np.zeros(0)
    if sum(s.shape[0] for s in sources) == 0 or (q.ndim == 2 and len(q) == 0):
        return dask.delayed(none)
    q, _ = _match(q, sources[0].dtype, m)
    _check_query(q, m)
    shared, parts, base = dask.delayed(q, pure=True), [], 0
    part, best = dask.delayed(_part, pure=True), dask.delayed(_best, pure=True)
    for source in sources:
        where, first = dask.delayed(source, pure=True), 0
        for n in _spans(source, chunk_rows, chunk_bytes) if source.shape[0] else []:
            parts.append(part(shared, where, base, m, k, first, first + n, threads))
            first += n
        base += source.shape[0]
    while True:
        parts = [best(parts[i:i + _FAN_IN], k, m in SIMILARITIES) for i in range(0, len(parts), _FAN_IN)]
        if len(parts) == 1:
            return dask.delayed(_flat, pure=True)(parts[0])


def top_k(query: np.ndarray, path: PathLike, name: str, metric: str, k: int = 10, *, chunk_rows: Optional[int] = None,
          chunk_bytes: Chunk = None, threads: int = 1, compute: bool = True) -> Any:
    """(uint64 (m,), float64 (m,)): the rows of the array (n, dim) that are best for `query` (dim,), and their scores; best first,
    m = min(k, n). For queries (nq, dim) flat arrays of nq * m, one query after the other.

    Every chunk is searched by libnumpack where a worker runs it, with `threads` threads, and the results are merged: they are, bit
    for bit, what `StreamingVectorEngine` finds in one process. Metrics, order and dtypes are those of `numpackfs.vector_engine`.
    With compute=False a Delayed of the result.

    ValueError: what `numpackfs.vector_engine` refuses, and what `array` does; KeyError: no such array; StaleError.
    """
    found = _search(query, [Source(path, name)], metric, k, chunk_rows, chunk_bytes, threads)
    return found.compute() if compute else found


# --- many stores ------------------------------------------------------------------------------------------------------


def _which(stores: List[str], starts: np.ndarray, found: Result) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows, scores = found
    at = np.searchsorted(starts, rows, side="right") - 1
    return at, rows - starts[at], scores


class Dataset:
    """The arrays of one name in several stores, or mounts, as one array: the first store's rows, then the second's, and so on.

    `stores` is a list of paths, or a pattern as "parts/*.npk", whose matches are taken in the order of their names. All arrays
    have one dtype and one shape but for the rows.

    Attributes: `stores` (paths), `shape`, `dtype`, `starts` (uint64, the number of each store's first row).

    ValueError: no store at all, one that is none, another dtype or shape; KeyError: a store without the array.
    """

    def __init__(self, stores: Union[PathLike, Iterable[PathLike]], name: str):
        if isinstance(stores, (str, Path)):
            pattern, stores = str(stores), sorted(glob.glob(str(stores)))
            if not stores:
                raise ValueError(f"{pattern}: there is no such store")
        self._sources = []
        for path in stores:
            try:
                self._sources.append(Source(path, name))
            except ArrayNotFoundError:
                raise KeyError(f"{path}: has no array {name!r}") from None
        if not self._sources:
            raise ValueError("a dataset of no store")
        first = self._sources[0]
        for s in self._sources:
            if (s.dtype, s.shape[1:]) != (first.dtype, first.shape[1:]):
                raise ValueError(f"{s.path}: array {name} has rows of {s.dtype}{s.shape[1:]}, not {first.dtype}{first.shape[1:]} as "
                                 f"in {first.path}")
        self.name, self.dtype = name, first.dtype
        self.stores = [s.path for s in self._sources]
        ends = np.cumsum([s.shape[0] for s in self._sources], dtype=np.uint64)
        self.starts = np.concatenate([np.zeros(1, np.uint64), ends[:-1]])
        self.shape = (int(ends[-1]),) + first.shape[1:]

    def __repr__(self) -> str:
        return f"Dataset({self.name!r} of {len(self.stores)} stores, shape={self.shape}, dtype={self.dtype})"

    def __len__(self) -> int:
        return self.shape[0]

    def array(self, *, chunk_rows: Optional[int] = None, chunk_bytes: Chunk = None) -> Any:
        """All rows as one dask.array.Array; chunks as for `array`, none reaches over two stores."""
        parts = [_array_of(s, chunk_rows, chunk_bytes) for s in self._sources if s.shape[0]]
        return da.concatenate(parts) if parts else _array_of(self._sources[0], chunk_rows, chunk_bytes)

    def top_k(self, query: np.ndarray, metric: str, k: int = 10, *, chunk_rows: Optional[int] = None, chunk_bytes: Chunk = None,
              threads: int = 1, compute: bool = True) -> Any:
        """(int64 (m,), uint64 (m,), float64 (m,)): which of `stores`, the row in it, and the score. Otherwise as `top_k` on
        `array()`: equal scores by the earlier store, then the lower row."""
        found = _search(query, self._sources, metric, k, chunk_rows, chunk_bytes, threads)
        found = dask.delayed(_which, pure=True)(self.stores, self.starts, found)
        return found.compute() if compute else found


# --- append -----------------------------------------------------------------------------------------------------------


def _write(fd: int, data: Any) -> None:
    left = memoryview(data).cast("B")
    while left:
        left = left[os.write(fd, left[:_WRITE]):]


def _append_stream(block: np.ndarray, file: str) -> None:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(block))
    fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        _write(fd, head.getvalue())
        if block.nbytes:
            _write(fd, block)
    finally:
        os.close(fd)


def _append_block(block: np.ndarray, mountpoint: str, name: str, token: str, i: int) -> int:
    """One block as one NPY stream, which the mount commits as a whole. Dask may run a task again whose worker died; the file
    that tells how far it came is in the mount too."""
    note = os.path.join(mountpoint, f".append-{token}-{i}")
    try:
        with open(note, "xb", buffering=0) as done:
            _append_stream(np.ascontiguousarray(block), os.path.join(mountpoint, ".numpack", "arrays", component(name), "append"))
            done.write(b"done\n")
    except FileExistsError:
        with open(note, "rb") as f:
            if f.read() != b"done\n":
                raise NumPackError(f"{mountpoint}: appending block {i} to array {name} was begun before and has no end: whether its "
                                   f"{len(block)} rows are there is not known") from None
    except OSError as e:
        raise NumPackError(f"{mountpoint}: append to array {name}: {e.strerror}", e.errno) from e
    return len(block)


def _ctl_max(mountpoint: str) -> int:
    """How many bytes one command may carry."""
    with open(os.path.join(mountpoint, ".numpack", "config")) as f:
        value = next(line.split("=")[1].split("#")[0].strip() for line in f if line.split(" ")[0] == "ctl_max")
    return int(dask.utils.parse_bytes(value.replace("K", "KiB").replace("M", "MiB").replace("G", "GiB")))


def append(x: Any, mountpoint: PathLike, name: str) -> int:
    """Appends all rows of the dask array `x` to the array `name` through the read-write mount at `mountpoint`; returns how many.

    Each worker writes its blocks to the mount's control file `append`. A block (of at most the mount's ctl_max bytes; larger ones
    are divided) is appended as a whole or not at all, once, and its rows stay together; blocks come in the order in which workers
    finish them. All workers run on the machine of the mount. What was appended when this raises stays.

    ValueError: another dtype or row shape than the array's; KeyError: no such array; NumPackError: the mount refused, or a worker
    died in the middle of its write (the message names the block).
    """
    mountpoint = os.path.abspath(mountpoint)
    if not is_mount(mountpoint):
        raise ValueError(f"{mountpoint}: no store is mounted there")
    try:
        with open(os.path.join(mountpoint, ".numpack", "arrays", component(name), "info")) as f:
            info = json.load(f)
    except FileNotFoundError:
        raise ArrayNotFoundError(name) from None
    inner = tuple(info["shape"][1:])
    if x.ndim != len(info["shape"]) or x.shape[1:] != inner or x.dtype != np.dtype(info["descr"]):
        raise ValueError(f"array {name} has rows of {info['dtype']}{inner}, not {x.dtype}{x.shape[1:]}")
    if any(np.isnan(n) for n in x.chunks[0]):
        x = x.compute_chunk_sizes()
    most = max(1, (_ctl_max(mountpoint) - (64 << 10)) // max(1, info["row_bytes"]))
    rows = tuple(min(most, n - at) for n in x.chunks[0] for at in range(0, n, most))
    if not rows:
        return 0
    x = x.rechunk((rows,) + tuple((n,) for n in inner))
    token = uuid.uuid4().hex
    one = dask.delayed(_append_block, pure=False)
    blocks = [one(block, mountpoint, name, token, i) for i, block in enumerate(x.to_delayed().reshape(-1))]
    try:
        return int(sum(dask.compute(*blocks)))
    finally:
        for i in range(len(blocks)):
            try:
                os.unlink(os.path.join(mountpoint, f".append-{token}-{i}"))
            except FileNotFoundError:
                pass
