"""batch_mode() and writable_batch_mode()."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Dict, Optional

import numpy as np

from .errors import ArrayNotFoundError

if TYPE_CHECKING:
    from .core import NumPack


class BatchModeContext:
    """Inside, `load` gives one object per name and `save` only remembers it; everything saved is written at the end, also when
    the body raised, and the exception goes on. `append`, `drop`, `replace` and everything that reads another way write what is
    remembered of their array first, so that they see it."""

    def __init__(self, npk: "NumPack", memory_limit: Optional[float] = None):
        if memory_limit is not None and memory_limit <= 0:
            raise ValueError(f"memory_limit is {memory_limit}, not a positive number of MiB")
        self.npk = npk
        self.memory_limit = memory_limit

    def __enter__(self) -> "BatchModeContext":
        self.npk._check()
        self._outer = self.npk._batch      # one batch inside another shares its arrays
        if self._outer is None:
            self.npk._batch = _Cache(self.npk, self.memory_limit)
        return self

    def __exit__(self, exc_type: Any, exc: Any, tb: Any) -> None:
        batch, self.npk._batch = self.npk._batch, self._outer
        if batch is not None:              # else closed inside, which wrote everything
            batch.write(None)


class _Cache:
    def __init__(self, npk: "NumPack", memory_limit: Optional[float]):
        self.npk = npk
        self.limit = None if memory_limit is None else int(memory_limit * (1 << 20))
        self.arrays: Dict[str, np.ndarray] = {}
        self.dirty: Dict[str, None] = {}

    def load(self, name: str) -> np.ndarray:
        got = self.arrays.get(name)
        if got is None:
            got = self.npk._store.gen(name).read_all()
            self.arrays[name] = got
            self._shrink(name)
        return got

    def save(self, name: str, a: np.ndarray) -> None:
        self.arrays[name] = a
        self.dirty[name] = None
        self._shrink(name)

    def _shrink(self, keep: str) -> None:
        """The limit is a soft one: the array in hand stays, the oldest others are written and forgotten."""
        if self.limit is None:
            return
        total = sum(a.nbytes for a in self.arrays.values())
        for name in [n for n in self.arrays if n != keep]:
            if total <= self.limit:
                break
            total -= self.arrays[name].nbytes
            self.write([name])
            del self.arrays[name]

    def write(self, names) -> None:
        """Writes what was saved of these arrays (None: of all), in one step where the library can."""
        names = [n for n in self.dirty if names is None or n in names]
        if names:
            self.npk._write_all({n: self.arrays[n] for n in names})
            for n in names:
                del self.dirty[n]

    def forget(self, name: str) -> None:
        """Before a change that goes to the file."""
        self.write([name])
        self.arrays.pop(name, None)


class WritableBatchMode:
    """Inside, `load` gives an array over a writable map of the data file: what is written to it is in the store, and no save
    is needed. One object per name.

    An array with deleted rows, or in segments, has no such map; it is given as a copy in memory of its (logical) rows, and
    written back in place at the end. Until then other readers do not see its changes.
    """

    def __init__(self, npk: "NumPack"):
        self.npk = npk
        self.arrays: Dict[str, np.ndarray] = {}
        self._copies: Dict[str, tuple] = {}

    def __enter__(self) -> "WritableBatchMode":
        self.npk._check()
        return self

    def load(self, array_name: str) -> np.ndarray:
        """The rows, writable. KeyError: no such array; ValueError: an array without bytes cannot be mapped."""
        self.npk._check()
        got = self.arrays.get(array_name)
        if got is not None:
            return got
        if self.npk._batch is not None:
            self.npk._batch.forget(array_name)
        store = self.npk._store
        gen = store.gen(array_name)
        if gen.rows * gen.row_bytes == 0:
            raise ValueError(f"array {array_name}: cannot mmap an empty file")
        got = store.writable_map(array_name)
        if got is None:
            got = gen.read_all()
            self._copies[array_name] = (gen, got)
        self.arrays[array_name] = got
        return got

    def save(self, arrays: Dict[str, np.ndarray]) -> None:
        """Only checks that each array is one that load() gave: what is in it is saved already."""
        for name in arrays:
            if name not in self.arrays:
                raise KeyError(f"Array {name} was not loaded in this writable_batch_mode()")

    def __exit__(self, exc_type: Any, exc: Any, tb: Any) -> None:
        store = self.npk._store
        now = time.time_ns() // 1000
        try:
            for name in self.arrays:
                try:
                    if name in self._copies:
                        store.write_back(name, *self._copies[name])
                    store.touch(name, now)
                except ArrayNotFoundError:      # dropped inside
                    continue
        finally:
            self.arrays, self._copies = {}, {}
