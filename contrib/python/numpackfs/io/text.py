"""CSV and other text with one row a line."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Iterator, List, Optional, Union

import numpy as np

from ..core import NumPack
from .common import (DEFAULT_CHUNK_SIZE, PathLike, Progress, finished, input_file, opened, output_file, rows_in_blocks, storable,
                     store_rows, the_array, writing)


def from_csv(input_path: PathLike, output_path: PathLike, array_name: Optional[str] = None, drop_if_exists: bool = False,
             dtype: Any = None, delimiter: Optional[str] = ",", skiprows: int = 0, max_rows: Optional[int] = None,
             chunk_size: int = DEFAULT_CHUNK_SIZE, return_npk_obj: bool = False, header: Optional[int] = None,
             comments: str = "#", encoding: str = "utf-8", progress: Progress = None) -> Optional[NumPack]:
    """Lines of numbers as the array `array_name` (default: the file's stem) of shape (lines, columns), or (lines,) when there is
    one column; of `dtype` (default float64). As numpy.loadtxt, in blocks. `header` 0: the first line (after skiprows) holds names
    and is left out.

    FileNotFoundError; ValueError: a field that is no number, lines of different lengths, a file without numbers.
    """
    dtype = storable(np.float64 if dtype is None else dtype, "dtype")
    if header not in (None, 0, False, True):
        raise ValueError(f"header is {header!r}, not None or 0")
    if max_rows is not None and max_rows < 1:
        raise ValueError(f"max_rows is {max_rows}, not at least 1")
    skip = skiprows + (header is not None and header is not False)
    with input_file(input_path) as path, open(path, encoding=encoding) as f, writing(output_path, drop_if_exists) as npk:
        for _ in range(skip):
            f.readline()

        def lines() -> Iterator[str]:
            for line in f:
                text = line.split(comments, 1)[0] if comments else line
                if text.strip():
                    yield text

        source = itertools.islice(lines(), max_rows)

        def blocks(first: np.ndarray) -> Iterator[np.ndarray]:
            at, block = 0, first
            # A line of text is about ten bytes a number; so are its strings in a list, several times over.
            n = max(1, chunk_size // (32 * max(1, first.shape[1])))
            while True:
                at += len(block)
                yield block[:, 0] if first.shape[1] == 1 else block
                some = list(itertools.islice(source, n))
                if not some:
                    return
                try:
                    block = np.loadtxt(some, dtype=dtype, delimiter=delimiter, comments=None, ndmin=2)
                except ValueError as e:
                    raise ValueError(f"{input_path}: after {at} rows: {e}") from None
                if block.shape[1] != first.shape[1]:
                    raise ValueError(f"{input_path}: after {at} rows: {block.shape[1]} columns, not {first.shape[1]}")

        some = list(itertools.islice(source, 1))
        if not some:
            raise ValueError(f"{input_path}: has no numbers")
        try:
            first = np.loadtxt(some, dtype=dtype, delimiter=delimiter, comments=None, ndmin=2)
        except ValueError as e:
            raise ValueError(f"{input_path}: {e}") from None
        inner = () if first.shape[1] == 1 else first.shape[1:]
        store_rows(npk, array_name or Path(str(input_path)).stem, dtype, inner, blocks(first), 0, progress)
    return finished(npk, return_npk_obj)


def from_txt(input_path: PathLike, output_path: PathLike, array_name: Optional[str] = None, drop_if_exists: bool = False,
             dtype: Any = None, delimiter: Optional[str] = None, skiprows: int = 0, max_rows: Optional[int] = None,
             chunk_size: int = DEFAULT_CHUNK_SIZE, return_npk_obj: bool = False, **kwargs: Any) -> Optional[NumPack]:
    """from_csv() with fields separated by blanks."""
    return from_csv(input_path, output_path, array_name, drop_if_exists, dtype, delimiter, skiprows, max_rows, chunk_size,
                    return_npk_obj, **kwargs)


def _exact(dtype: np.dtype) -> str:
    """A format that reads back to the same value."""
    if dtype.kind in "bui":
        return "%d"
    return {2: "%.5g", 4: "%.9g", 8: "%.17g"}[dtype.itemsize]


def to_csv(input_path: PathLike, output_path: PathLike, array_name: Optional[str] = None, delimiter: str = ",",
           header: bool = False, fmt: Optional[str] = None, chunk_size: int = DEFAULT_CHUNK_SIZE, progress: Progress = None) -> None:
    """An array (default: the only one), one line a row; rows of more dimensions are flattened. `fmt` is numpy.savetxt's; without,
    every number reads back to the same value. `header`: a first line col0, col1, ..."""
    with opened(input_path) as npk:
        name = the_array(npk, array_name)
        shape, dtype = npk.get_shape(name), npk.get_dtype(name)
        columns = int(np.prod(shape[1:], dtype=object))
        formats: Union[str, List[str]]
        if fmt is not None:
            formats = fmt
        elif dtype.kind == "c":
            part = _exact(np.dtype(f"f{dtype.itemsize // 2}"))
            formats = [f"{part}{part[0]}+{part[1:]}j"] * columns      # 1.5-2j
        else:
            formats = _exact(dtype)
        with output_file(output_path) as path, open(path, "w", encoding="utf-8") as f:
            if header:
                f.write(delimiter.join(f"col{i}" for i in range(columns)) + "\n")
            for _, block in rows_in_blocks(npk, name, max(1, chunk_size // 8), progress):
                block = block.reshape(len(block), columns)
                np.savetxt(f, block.astype(np.uint8) if dtype.kind == "b" else block, delimiter=delimiter,
                           fmt=formats)


def to_txt(input_path: PathLike, output_path: PathLike, array_name: Optional[str] = None, delimiter: str = " ",
           fmt: Optional[str] = None, chunk_size: int = DEFAULT_CHUNK_SIZE, header: bool = False, progress: Progress = None) -> None:
    """to_csv() with fields separated by a blank."""
    to_csv(input_path, output_path, array_name, delimiter, header, fmt, chunk_size, progress)
