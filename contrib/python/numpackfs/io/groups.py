"""HDF5 files and Zarr stores."""

from __future__ import annotations

from typing import Any, Iterable, List, Optional

import numpy as np

from ..core import NumPack
from .common import (DEFAULT_CHUNK_SIZE, PathLike, Progress, estimate_chunk_rows, finished, input_file, need, opened, output_file,
                     rows_in_blocks, store_array, the_arrays, writing)


def _named(found: dict, names: Optional[Iterable[str]], where: str) -> dict:
    if names is None:
        return found
    missing = [n for n in names if n not in found]
    if missing:
        raise KeyError(f"{where}: has no {missing}; there are {sorted(found)}")
    return {n: found[n] for n in names}


def from_hdf5(input_path: PathLike, output_path: PathLike, dataset_names: Optional[List[str]] = None, group: str = "/",
              drop_if_exists: bool = False, chunk_size: int = DEFAULT_CHUNK_SIZE, return_npk_obj: bool = False,
              progress: Progress = None) -> Optional[NumPack]:
    """The datasets of one group of an HDF5 file (default: all of it; not those of groups inside). KeyError: no such group or
    dataset; ValueError: a dtype that NumPack lacks, 0 dimensions."""
    h5py = need("h5py", "hdf5")
    with input_file(input_path) as path, h5py.File(path, "r") as f:
        found = {k: v for k, v in f[group].items() if isinstance(v, h5py.Dataset)}
        with writing(output_path, drop_if_exists) as npk:
            for name, dataset in _named(found, dataset_names, f"{input_path}: {group}").items():
                store_array(npk, name, dataset, chunk_size, progress)
    return finished(npk, return_npk_obj)


def to_hdf5(input_path: PathLike, output_path: PathLike, array_names: Optional[Iterable[str]] = None, group: str = "/",
            compression: Optional[str] = "gzip", compression_opts: Optional[int] = 4, chunk_size: int = DEFAULT_CHUNK_SIZE,
            progress: Progress = None) -> None:
    """Arrays (default: all) as datasets of one group."""
    h5py = need("h5py", "hdf5")
    with opened(input_path) as npk, output_file(output_path) as path, h5py.File(path, "w") as f:
        where = f.require_group(group)
        for name in the_arrays(npk, array_names):
            shape, dtype = npk.get_shape(name), npk.get_dtype(name)
            packed = compression if int(np.prod(shape, dtype=object)) else None      # nothing cannot be cut into chunks
            dataset = where.create_dataset(name, shape, dtype, compression=packed,
                                           compression_opts=compression_opts if packed == "gzip" else None)
            for at, block in rows_in_blocks(npk, name, chunk_size, progress):
                dataset[at:at + len(block)] = block


def from_zarr(input_path: PathLike, output_path: PathLike, array_names: Optional[List[str]] = None, group: str = "/",
              drop_if_exists: bool = False, chunk_size: int = DEFAULT_CHUNK_SIZE, return_npk_obj: bool = False,
              progress: Progress = None) -> Optional[NumPack]:
    """The arrays of one group of a Zarr store (default: all of it), or a store that is one array, which is named by its stem.
    KeyError: no such array; ValueError: a dtype that NumPack lacks, 0 dimensions."""
    zarr = need("zarr", "zarr")
    with input_file(input_path) as path:
        root: Any = zarr.open(str(path), mode="r")
        if hasattr(root, "arrays"):
            node = root if group.strip("/") == "" else root[group.strip("/")]
            found = dict(node.arrays())
        else:
            found = {path.stem: root}
        with writing(output_path, drop_if_exists) as npk:
            for name, a in _named(found, array_names, f"{input_path}: {group}").items():
                store_array(npk, name, a, chunk_size, progress)
    return finished(npk, return_npk_obj)


def to_zarr(input_path: PathLike, output_path: PathLike, array_names: Optional[Iterable[str]] = None, group: str = "/",
            compressor: Any = "default", chunk_size: int = DEFAULT_CHUNK_SIZE, progress: Progress = None) -> None:
    """Arrays (default: all) as arrays of one group, in chunks of at most 16 MiB of rows. `compressor`: zarr's own choice, None, or
    one of its codecs."""
    zarr = need("zarr", "zarr")
    with opened(input_path) as npk, output_file(output_path) as path:
        root: Any = zarr.open_group(str(path), mode="w")
        where = root if group.strip("/") == "" else root.require_group(group.strip("/"))
        for name in the_arrays(npk, array_names):
            shape, dtype = npk.get_shape(name), npk.get_dtype(name)
            rows = estimate_chunk_rows((max(1, shape[0]),) + shape[1:], dtype, min(chunk_size, 16 << 20))
            chunks = (rows,) + tuple(max(1, n) for n in shape[1:])
            if hasattr(where, "create_array"):      # zarr 3
                extra = {} if compressor == "default" else {"compressors": compressor}
                out = where.create_array(name, shape=shape, dtype=dtype, chunks=chunks, **extra)
            else:
                extra = {} if compressor == "default" else {"compressor": compressor}
                out = where.create_dataset(name, shape=shape, dtype=dtype, chunks=chunks, **extra)
            # Whole chunks at a time, so that none is read back to be filled up.
            row = max(1, int(np.prod(shape[1:], dtype=object)) * dtype.itemsize)
            for at, block in rows_in_blocks(npk, name, rows * row, progress):
                out[at:at + len(block)] = block
