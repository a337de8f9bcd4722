"""What every converter needs: stores opened for one conversion, rows in blocks of bounded size, files that appear whole, URLs."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, List, Optional, Tuple, Union

import numpy as np

from .._lib import CODES
from ..core import NumPack

PathLike = Union[str, Path]
Progress = Optional[Callable[[int, int], None]]

LARGE_FILE_THRESHOLD = 1 << 30        # bytes; kept for NumPack's programs: here every size is streamed
DEFAULT_CHUNK_SIZE = 100 << 20        # bytes of rows in memory at a time
# Of fsspec's protocols, those without directories: makedirs() would make a bucket of a mistyped name.
_BUCKETS = frozenset(("s3", "s3a", "gs", "gcs", "abfs", "az", "oss"))


class DependencyError(ImportError):
    """The library that a format needs is not installed; the message says what to install."""


def need(module: str, extra: str) -> Any:
    """The module, or DependencyError."""
    try:
        return importlib.import_module(module)
    except ImportError as e:
        raise DependencyError(f"this needs {module.split('.')[0]}: pip install 'numpackfs[{extra}]' ({e})") from e


def get_file_size(path: PathLike) -> int:
    """Bytes of a file, or of all files under a directory."""
    path = Path(path)
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size


def is_large_file(path: PathLike, threshold: int = LARGE_FILE_THRESHOLD) -> bool:
    """Whether it has more than `threshold` bytes."""
    return get_file_size(path) > threshold


def estimate_chunk_rows(shape: Tuple[int, ...], dtype: Any, target_chunk_bytes: int = DEFAULT_CHUNK_SIZE) -> int:
    """How many rows of an array of that shape make about so many bytes; from 1 to all of them."""
    row = int(np.prod(shape[1:], dtype=object)) * np.dtype(dtype).itemsize
    return max(1, min(int(shape[0]) if shape else 1, target_chunk_bytes // max(1, row)))


def spans(rows: int, shape: Tuple[int, ...], dtype: Any, chunk_size: int) -> Iterator[Tuple[int, int]]:
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}, not at least 1 byte")
    step = estimate_chunk_rows((max(1, rows),) + tuple(shape[1:]), dtype, chunk_size)
    for at in range(0, rows, step):
        yield at, min(rows, at + step)


def storable(dtype: Any, what: str) -> np.dtype:
    """The dtype in which it is stored: its own in native byte order. ValueError when NumPack has no such dtype."""
    native = np.dtype(dtype).newbyteorder("=")
    if native not in CODES:
        raise ValueError(f"{what}: NumPack cannot store dtype {np.dtype(dtype)}")
    return native


# --- stores ---


@contextlib.contextmanager
def writing(path: PathLike, drop_if_exists: bool) -> Iterator[NumPack]:
    npk = NumPack(path, drop_if_exists=drop_if_exists)
    npk.open()
    try:
        yield npk
    finally:
        npk.close()


def finished(npk: NumPack, return_npk_obj: bool) -> Optional[NumPack]:
    """What an import returns."""
    if not return_npk_obj:
        return None
    npk.open()
    return npk


@contextlib.contextmanager
def opened(path: PathLike) -> Iterator[NumPack]:
    """A store to be read; FileNotFoundError when it is not there."""
    if not Path(path).is_dir():
        raise FileNotFoundError(f"{path}: is no NumPack directory")
    with NumPack(path) as npk:
        yield npk


def the_array(npk: NumPack, array_name: Optional[str]) -> str:
    """The array that is meant: the named one, or the only one. ValueError when there are several."""
    if array_name is not None:
        npk.get_shape(array_name)
        return array_name
    names = npk.get_member_list()
    if len(names) != 1:
        raise ValueError(f"NumPack contains multiple arrays {names}; please provide the array_name argument" if names else
                         "NumPack contains no array")
    return names[0]


def the_arrays(npk: NumPack, array_names: Union[None, str, Iterable[str]]) -> List[str]:
    if array_names is None:
        return npk.get_member_list()
    names = [array_names] if isinstance(array_names, str) else list(array_names)
    for name in names:
        npk.get_shape(name)
    return names


def store_rows(npk: NumPack, name: str, dtype: np.dtype, inner: Tuple[int, ...], blocks: Iterable[np.ndarray], total: int = 0,
               progress: Progress = None) -> None:
    """Saves an array whose blocks (n, *inner) come one after the other; it appears whole, or not at all."""
    done = 0
    with npk._check().saving(name, dtype, inner) as write:
        for block in blocks:
            write(np.ascontiguousarray(block, dtype=dtype))
            done += len(block)
            if progress is not None:
                progress(done, max(total, done))


def store_array(npk: NumPack, name: str, a: Any, chunk_size: int, progress: Progress = None) -> None:
    """Saves anything with shape, dtype and slices: a memory map, an HDF5 dataset, a Zarr array."""
    if len(a.shape) == 0:
        raise ValueError(f"{name}: has 0 dimensions, NumPack stores 1 or more")
    dtype = storable(a.dtype, name)
    rows = a.shape[0]
    store_rows(npk, name, dtype, tuple(a.shape[1:]),
               (np.asarray(a[at:end]) for at, end in spans(rows, a.shape, dtype, chunk_size)), rows, progress)


def rows_in_blocks(npk: NumPack, name: str, chunk_size: int, progress: Progress = None) -> Iterator[Tuple[int, np.ndarray]]:
    """(first row, block) of all rows, of one moment."""
    gen = npk._check().gen(name)
    for at, end in spans(gen.rows, gen.shape, gen.dtype, chunk_size):
        yield at, gen.read(at, end - at)
        if progress is not None:
            progress(end, gen.rows)


def in_memory(npk: NumPack, name: str, progress: Progress = None) -> np.ndarray:
    """All rows of an array, of one moment."""
    if progress is None:
        return npk.load(name)
    gen = npk._check().gen(name)
    out = np.empty(gen.shape, gen.dtype)
    for at, end in spans(gen.rows, gen.shape, gen.dtype, DEFAULT_CHUNK_SIZE):
        gen.read_into(at, out[at:end])
        progress(end, gen.rows)
    return out


# --- files and URLs ---


def is_url(path: Any) -> bool:
    return isinstance(path, str) and "://" in path


@contextlib.contextmanager
def input_file(path: PathLike, storage_options: Optional[dict] = None) -> Iterator[Path]:
    """The file or directory; of a URL a copy on this machine, which goes at the end. FileNotFoundError when it is not there."""
    if not is_url(path):
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"File not found: {path}")
        yield path
        return
    fs, where = need("fsspec", "fsspec").core.url_to_fs(path, **(storage_options or {}))
    if not fs.exists(where):
        raise FileNotFoundError(f"File not found: {path}")
    with tempfile.TemporaryDirectory(prefix="numpackfs-") as tmp:
        local = Path(tmp) / where.rstrip("/").rsplit("/", 1)[-1]
        fs.get(where, str(local), recursive=fs.isdir(where))
        yield local


@contextlib.contextmanager
def output_file(path: PathLike, storage_options: Optional[dict] = None) -> Iterator[Path]:
    """A name to write to, of the same suffix; at the end it becomes `path`, a file or a directory, or is put to the URL. After an
    exception nothing is left of it, and what was at `path` stays."""
    if is_url(path):
        fs, where = need("fsspec", "fsspec").core.url_to_fs(path, **(storage_options or {}))
        with tempfile.TemporaryDirectory(prefix="numpackfs-") as tmp:
            local = Path(tmp) / where.rstrip("/").rsplit("/", 1)[-1]
            yield local
            parent = where.rstrip("/").rpartition("/")[0]
            if parent and not _BUCKETS.intersection([fs.protocol] if isinstance(fs.protocol, str) else fs.protocol):
                fs.makedirs(parent, exist_ok=True)
            fs.put(str(local), where, recursive=local.is_dir())
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield beside / path.name
        if path.is_dir() and not path.is_symlink():
            path.rename(beside / "old")
        os.replace(beside / path.name, path)
    finally:
        shutil.rmtree(beside)
