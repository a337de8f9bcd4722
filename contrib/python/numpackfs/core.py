"""The class NumPack, as NumPack's documentation describes it."""

from __future__ import annotations

import contextlib
import gc
import warnings
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Literal, Optional, Tuple, Union, overload

import numpy as np

from . import _store
from ._index import rows_of
from ._lib import CODES, MAX_NDIM
from .batch import BatchModeContext, WritableBatchMode, _Cache
from .errors import ArrayNotFoundError
from .lazy import LazyArray

Indexes = Union[int, List[int], Tuple[int, ...], np.ndarray, slice]


def _storable(name: str, value: Any) -> np.ndarray:
    """`value` as an array that a store can hold. AttributeError: it has no dtype, as a list; TypeError: bytes in the other
    order; ValueError: a dtype or a number of dimensions that NumPack does not have."""
    dtype = np.dtype(value.dtype)
    a = np.asarray(value)
    if dtype not in CODES:
        if dtype.byteorder == ">" and dtype.newbyteorder("<") in CODES:
            raise TypeError(f"array {name}: {dtype.str} is big-endian; use .astype({dtype.newbyteorder('<').str!r})")
        raise ValueError(f"array {name}: Unsupported dtype: {dtype}")
    if a.ndim == 0 or a.ndim > MAX_NDIM:
        raise ValueError(f"array {name}: has {a.ndim} dimensions; NumPack stores 1 to {MAX_NDIM}")
    return a


class NumPack:
    """A directory of arrays.

    Rows are counted logically everywhere: deleted ones are not there. Every change is atomic and survives the death of the
    process as soon as its call returns; `close()` makes it survive the death of the machine and readable for any version of
    NumPack. Any thread may use one object. In a process all objects of one directory share what is open; other processes may
    read at the same time, and one process writes: the others' changes raise StoreBusyError (a RuntimeError), which names the
    writer, and the mountpoint when it is a mount. A forked child may read; to write it closes and opens.

    Parameters
    ----------
    filename : str or Path
        The directory. Nothing is touched before open().
    drop_if_exists : bool
        Remove the directory with all that is in it at the first open().
    strict_context_mode : bool
        Allow operations only inside a `with` statement.
    warn_no_context : bool, optional
        Warn when open() is called outside a `with` statement. Off unless asked for.
    force_gc_on_close : bool
        Collect garbage at close(), so that maps nobody uses go at once.
    lock_timeout : float
        Seconds that the first change waits for another writer to finish.

    Errors
    ------
    RuntimeError: not open, closed, or the store itself (see numpackfs.errors); KeyError: no such array; IndexError: no such row;
    ValueError and TypeError: arguments that make no sense.
    """

    def __init__(self, filename: Union[str, Path], drop_if_exists: bool = False, strict_context_mode: bool = False,
                 warn_no_context: Optional[bool] = None, force_gc_on_close: bool = False, *, lock_timeout: float = 10.0):
        self._filename = Path(filename)
        self._drop_if_exists = drop_if_exists
        self._strict = strict_context_mode
        self._warn = bool(warn_no_context)
        self._force_gc = force_gc_on_close
        self._lock_timeout = lock_timeout
        self._in_context = False
        self._store: Any = None
        self._batch: Optional[_Cache] = None

    # --- opening and closing ---

    def open(self) -> None:
        """Opens the directory, and makes it with its parents when it is not there. Does nothing when it is open.

        RuntimeError: in strict mode outside a `with` statement; a damaged store; a directory that cannot be made.
        """
        if self._store is not None:
            return
        if not self._in_context:
            if self._strict:
                raise RuntimeError(f"NumPack instance '{self._filename}' is in strict context mode: use it in a 'with' statement")
            if self._warn:
                warnings.warn(f"NumPack('{self._filename}') is opened outside a 'with' statement; call close() yourself",
                              UserWarning, stacklevel=2)
        if self._drop_if_exists:
            _store.remove_tree(self._filename)
            self._drop_if_exists = False
        self._store = _store.acquire(self._filename, self._lock_timeout)

    def close(self, force_gc: Optional[bool] = None) -> None:
        """Brings everything to disk and closes. Does nothing when it is closed. The object may be opened again.

        RuntimeError: something could not be written; it stays in the store's journal, and the object is closed.
        """
        store = self._store
        if store is not None:
            try:
                if self._batch is not None:
                    self._batch.write(None)
            finally:
                self._store, self._batch = None, None
                _store.release(store)
        if self._force_gc if force_gc is None else force_gc:
            gc.collect()

    def __enter__(self) -> "NumPack":
        self._in_context = True
        try:
            self.open()
        except BaseException:
            self._in_context = False
            raise
        return self

    def __exit__(self, exc_type: Any, exc: Any, tb: Any) -> None:
        self._in_context = False
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_store", None) is not None:
            try:
                self.close()
            except Exception as e:      # at the interpreter's end as well
                warnings.warn(f"closing {self._filename}: {e}", RuntimeWarning)

    def _check(self) -> Any:
        if self._store is None:
            raise RuntimeError(f"NumPack instance '{self._filename}' is not opened or has been closed. Call open() first, or use "
                               "a 'with' statement.")
        if self._strict and not self._in_context:
            raise RuntimeError(f"NumPack instance '{self._filename}' is in strict context mode: use it in a 'with' statement")
        return self._store

    @property
    def is_opened(self) -> bool:
        return self._store is not None

    @property
    def is_closed(self) -> bool:
        return self._store is None

    @property
    def backend_type(self) -> str:
        """"rust", which is what programs for NumPack compare it with. The backend here is libnumpack, written in C."""
        return "rust"

    def sync(self) -> None:
        """Brings everything to disk in the form that any version of NumPack reads, as close() does, and stays open."""
        store = self._check()
        if self._batch is not None:
            self._batch.write(None)
        store.sync()

    def refresh(self) -> None:
        """Takes over what another process changed in the store since it was opened here."""
        self._check().refresh()

    # --- whole arrays ---

    def save(self, arrays: Dict[str, np.ndarray]) -> None:
        """Stores arrays (1 to 32 dimensions, one of NumPack's 14 dtypes); one of the same name is replaced as a whole.

        ValueError: not a dict, a dtype that NumPack lacks, 0 dimensions; TypeError: big-endian; AttributeError: not an array;
        RuntimeError (also a ValueError): a name that NumPack could not read back. All are checked before anything is written.
        """
        self._check()
        if not isinstance(arrays, dict):
            raise ValueError("arrays must be a dictionary")
        checked = {name: _storable(name, a) for name, a in arrays.items()}
        if self._batch is not None:
            for name, a in checked.items():
                self._batch.save(name, arrays[name] if isinstance(arrays[name], np.ndarray) else a)
        else:
            self._write_all(checked)

    def _write_all(self, arrays: Dict[str, np.ndarray]) -> None:
        with self._one_change(list(arrays)):
            for name, a in arrays.items():
                self._store.save(name, a)

    def _one_change(self, names: List[str]) -> Any:
        """Several arrays change together or not at all; one needs no transaction for that."""
        return self._store.together(names) if len(names) > 1 else contextlib.nullcontext()

    @overload
    def load(self, array_name: str, lazy: Literal[False] = False) -> np.ndarray: ...

    @overload
    def load(self, array_name: str, lazy: Literal[True]) -> LazyArray: ...

    @overload
    def load(self, array_name: str, lazy: bool) -> Union[np.ndarray, LazyArray]: ...

    def load(self, array_name: str, lazy: bool = False) -> Union[np.ndarray, LazyArray]:
        """All rows as a new array of the stored shape and dtype, or with `lazy` a LazyArray that reads what is asked of it.

        KeyError: no such array. In batch_mode() the same object each time.
        """
        if self._batch is not None and not lazy:
            self._check()
            return self._batch.load(array_name)
        gen = self._gen(array_name)
        return LazyArray(gen, array_name) if lazy else gen.read_all()

    def __getitem__(self, key: str) -> np.ndarray:
        """`load(key)`."""
        return self.load(key)

    def __iter__(self) -> Iterator[str]:
        """The arrays' names."""
        return iter(self.get_member_list())

    def __contains__(self, key: Any) -> bool:
        return isinstance(key, str) and self.has_array(key)

    def __len__(self) -> int:
        return len(self.get_member_list())

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        if self._store is not None:
            return f"NumPack({self._filename}, arrays={len(self._settled().names())}, backend={self.backend_type})"
        return f"NumPack({self._filename}, status=closed, backend={self.backend_type})"

    def _gen(self, name: str) -> Any:
        """The array's current generation. KeyError: no such array."""
        store = self._store
        if store is None or self._strict or self._batch is not None:
            store = self._settled(name)
        array = store.arrays.get(name)      # what store.gen() does, without the call
        return array is not None and array.gen or store.gen(name)

    def _settled(self, name: Optional[str] = None) -> Any:
        """The store, once what batch_mode() remembers of the array (None: of all) is written."""
        store = self._check()
        if self._batch is not None:
            self._batch.write(None if name is None else [name])
        return store

    # --- rows ---

    def getitem(self, array_name: str, indexes: Indexes) -> np.ndarray:
        """Rows as a new array: for an int one row without the leading axis (of a 1-D array its element), for a slice, a list or
        an array of ints (k, ...) in that order, for a boolean mask where it is true.

        KeyError: no such array; IndexError: no such row; TypeError: an index of another kind; ValueError: a mask of another
        length.
        """
        gen = self._gen(array_name)
        out = gen.quick(indexes)
        if out is not None:
            return out
        if not gen.shape:
            raise IndexError(f"array {array_name} has no dimension to index")
        rows = rows_of(indexes, gen.rows, array_name)
        if isinstance(rows, int):
            return gen.read(rows, 1)[0]
        if isinstance(rows, range):
            if rows.step == 1 or not rows:
                return gen.read(rows.start if rows else 0, len(rows))
            return gen.step(rows.start, rows.step, len(rows))
        return gen.take(rows)

    def replace(self, arrays: Dict[str, np.ndarray], indexes: Indexes) -> None:
        """Overwrites rows in place: row j of each array goes to row indexes[j]; an int takes one row with or without the
        leading axis. Nothing else moves.

        ValueError: not a dict, a shape that does not fit, as many rows as indexes do not; IndexError: no such row; KeyError: no
        such array; TypeError: another dtype. All are checked before anything is written.
        """
        store = self._check()
        if not isinstance(arrays, dict):
            raise ValueError("arrays must be a dictionary")
        again = True
        while again:
            todo = [(name, *self._replacement(name, value, indexes)) for name, value in arrays.items()]
            again = any(len(rows) for _, rows, _ in todo) and store.become_writer()
        self._forget(arrays)
        with self._one_change(list(arrays)):
            for name, rows, a in todo:
                if len(rows):
                    store.replace(name, rows, a)

    def _replacement(self, name: str, value: Any, indexes: Indexes) -> Tuple[Any, np.ndarray]:
        """Which rows of the array, and what they become."""
        gen = self._gen(name)
        a = np.asarray(value)
        rows = rows_of(indexes, gen.rows, name, ValueError)
        if isinstance(rows, int):
            rows = range(rows, rows + 1)
            if a.ndim == len(gen.inner):
                a = a[None]
        self._fits(name, gen, a, TypeError)
        if len(a) != len(rows):
            raise ValueError(f"array {name}: {len(a)} rows do not fit {len(rows)} indexes")
        if isinstance(rows, range) and rows.step != 1:
            rows = np.arange(rows.start, rows.stop, rows.step, dtype=np.int64)
        return rows, a

    @staticmethod
    def _fits(name: str, kind: Any, a: np.ndarray, wrong_dtype: type) -> None:
        """`kind` has dtype, ndim and inner of the array."""
        if a.ndim != kind.ndim:
            raise ValueError(f"Dimension mismatch for array {name}: expected {kind.ndim}, got {a.ndim}")
        if a.shape[1:] != kind.inner:
            raise ValueError(f"Shape mismatch for array {name}: rows are {kind.inner}, got {a.shape[1:]}")
        if a.dtype != kind.dtype:
            raise wrong_dtype(f"array {name} is {kind.dtype}, got {a.dtype}; use .astype({kind.dtype.str!r})")

    def _forget(self, names: Iterable[str]) -> None:
        """Before a change that goes to the files."""
        if self._batch is not None:
            for name in names:
                self._batch.forget(name)

    def append(self, arrays: Dict[str, np.ndarray]) -> None:
        """Adds rows (k, ...) behind the last ones of arrays that are there.

        ValueError: not a dict, other inner dimensions, another dtype; KeyError: no such array. All are checked before anything
        is written.
        """
        store = self._check()
        if not isinstance(arrays, dict):
            raise ValueError("arrays must be a dictionary")
        again = True
        while again:
            todo = []
            for name, value in arrays.items():
                a = np.asarray(value)
                if self._batch is not None:
                    self._settled(name)
                self._fits(name, store.kind(name), a, ValueError)
                if len(a):
                    todo.append((name, a))
            again = not store.writing and bool(todo) and store.become_writer()
        if self._batch is not None:
            self._forget(arrays)
        if len(todo) == 1:
            store.append(*todo[0])
        elif todo:
            with store.together([name for name, _ in todo]):
                for name, a in todo:
                    store.append(name, a)

    def drop(self, array_name: Union[str, List[str]], indexes: Optional[Indexes] = None) -> None:
        """Removes arrays, or hides rows of them. Rows named twice count once. `update()` gives the room of hidden rows back.

        An unknown name does nothing. IndexError: no such row; ValueError: an index of another kind.
        """
        store = self._check()
        names = [array_name] if isinstance(array_name, str) else list(dict.fromkeys(array_name))
        self._forget(names)
        again = True
        while again:
            todo = []
            for name in names:
                if not store.has(name):
                    continue
                rows: Any = None
                if indexes is not None:
                    rows = rows_of(indexes, store.gen(name).rows, name, ValueError)
                    rows = range(rows, rows + 1) if isinstance(rows, int) else rows
                    if not len(rows):
                        continue
                todo.append((name, rows))
            again = bool(todo) and store.become_writer()
        with self._one_change([name for name, _ in todo]):
            for name, rows in todo:
                if rows is None:
                    store.remove(name)
                else:
                    store.drop_rows(name, rows)

    def update(self, array_name: str) -> None:
        """Gives the room of hidden rows back. Does nothing without them. KeyError: no such array."""
        self._settled(array_name).compact(array_name)

    def stream_load(self, array_name: str, buffer_size: Optional[int] = None) -> Iterator[np.ndarray]:
        """Batches (buffer_size, ...) of rows, the last one shorter; without buffer_size one row each, with its leading axis.
        The rows are those of the moment of the call, whatever is dropped or saved meanwhile.

        KeyError: no such array; ValueError: buffer_size is not above 0.
        """
        if buffer_size is not None and buffer_size <= 0:
            raise ValueError(f"buffer_size must be greater than 0, not {buffer_size}")
        return self._batches(self._settled(array_name).gen(array_name), 1 if buffer_size is None else int(buffer_size))

    @staticmethod
    def _batches(gen: Any, n: int) -> Iterator[np.ndarray]:
        for at in range(0, gen.rows, n):
            yield gen.read(at, min(n, gen.rows - at))

    # --- about the arrays ---

    def get_shape(self, array_name: str) -> Tuple[int, ...]:
        """(rows, ...). KeyError: no such array."""
        return self._gen(array_name).shape

    def get_dtype(self, array_name: str) -> np.dtype:
        """KeyError: no such array."""
        return self._gen(array_name).dtype

    def get_member_list(self) -> List[str]:
        """The arrays' names, sorted."""
        return self._settled().names()

    def has_array(self, array_name: str) -> bool:
        store = self._store
        if store is None or self._strict or self._batch is not None:
            store = self._settled(array_name)
        return array_name in store.arrays or store.has(array_name)

    def get_modify_time(self, array_name: str) -> Optional[int]:
        """Microseconds since 1970 UTC; None when there is no such array."""
        try:
            return self._settled(array_name).info(array_name)["mtime_us"]
        except ArrayNotFoundError:
            return None

    def get_metadata(self) -> Dict[str, Any]:
        """{"arrays": {name: {"shape" (of the rows on disk, hidden ones included), "data_file", "last_modified" (microseconds),
        "size_bytes", "dtype" ("Float32")}}, "base_dir", "total_arrays"}"""
        out = self._settled().metadata()
        out["base_dir"] = str(self._filename)
        return out

    def get_io_stats(self) -> Dict[str, Any]:
        """{"backend_type": "rust", "stats_available": False}, as NumPack has it. A mount counts: .numpack/stats."""
        self._check()
        return {"backend_type": self.backend_type, "stats_available": False}

    # --- the store ---

    def clone(self, source_name: str, target_name: str) -> None:
        """An independent copy of the rows that are not hidden. KeyError: no source; ValueError: the target is there."""
        store = self._settled()
        if not store.has(source_name):
            raise ArrayNotFoundError(source_name)
        store.clone(source_name, target_name)

    def rename(self, source_name: str, target_name: str) -> None:
        """Gives an array another name. KeyError: no source; ValueError: the target is there."""
        if self._batch is not None:
            self._batch.forget(source_name)
        self._settled().rename(source_name, target_name)

    def reset(self) -> None:
        """Removes all arrays."""
        self._check()
        if self._batch is not None:
            self._batch.arrays.clear()
            self._batch.dirty.clear()
        self._store.reset()

    # --- batches ---

    def batch_mode(self, memory_limit: Optional[float] = None) -> BatchModeContext:
        """A context in which load() and save() work in memory; what was saved is written at its end. `memory_limit` is in MiB:
        above it arrays are written and forgotten before."""
        self._check()
        return BatchModeContext(self, memory_limit)

    def writable_batch_mode(self) -> WritableBatchMode:
        """A context whose load() gives arrays over the data files, which are changed by writing to them."""
        self._check()
        return WritableBatchMode(self)
