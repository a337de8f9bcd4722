"""Tables: pandas, pyarrow, Parquet, Feather. A 2-D array is a table of columns col0, col1, ... of one dtype, a 1-D array a table of
one column; a column of fixed-size lists is a 2-D array as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator, List, Optional, Tuple

import numpy as np

from ..core import NumPack
from .common import (DEFAULT_CHUNK_SIZE, PathLike, Progress, estimate_chunk_rows, finished, in_memory, input_file, need, opened, output_file,
                     rows_in_blocks, spans, storable, store_rows, the_array, writing)

# --- pandas ---


def from_pandas(df: Any, output_path: PathLike, array_name: str = "data", drop_if_exists: bool = False,
                chunk_size: int = DEFAULT_CHUNK_SIZE, return_npk_obj: bool = False, progress: Progress = None) -> Optional[NumPack]:
    """The values of a DataFrame as (rows, columns), or of a Series as (rows,), in the dtype that holds all columns.
    ValueError: a column that is not numeric."""
    pd = need("pandas", "pandas")
    if not isinstance(df, (pd.DataFrame, pd.Series)):
        raise TypeError(f"Expected pandas.DataFrame, got {type(df)}")
    dtype = storable(df.iloc[:0].to_numpy().dtype, "the table")
    with writing(output_path, drop_if_exists) as npk:
        store_rows(npk, array_name, dtype, df.shape[1:],
                   (df.iloc[at:end].to_numpy(dtype) for at, end in spans(len(df), df.shape, dtype, chunk_size)), len(df), progress)
    return finished(npk, return_npk_obj)


def to_pandas(input_path: PathLike, array_name: Optional[str] = None, columns: Optional[List[str]] = None,
              progress: Progress = None) -> Any:
    """An array (default: the only one) of one or two dimensions as a DataFrame with columns col0, col1, ..."""
    pd = need("pandas", "pandas")
    with opened(input_path) as npk:
        name = the_array(npk, array_name)
        shape = npk.get_shape(name)
        if len(shape) > 2:
            raise ValueError(f"array {name} has {len(shape)} dimensions, a table 2")
        if columns is None:
            columns = _columns(name, shape)
        return pd.DataFrame(in_memory(npk, name, progress), columns=columns)


# --- pyarrow ---


def _columns(name: str, shape: Tuple[int, ...]) -> List[str]:
    return [name] if len(shape) == 1 else [f"col{i}" for i in range(shape[1])]


def _layout(schema: Any) -> Tuple[np.dtype, Tuple[int, ...]]:
    """The dtype and inner shape of a table's rows. ValueError: columns that are not numbers."""
    pa = need("pyarrow", "arrow")
    if len(schema) == 0:
        raise ValueError("the table has no columns")
    if len(schema) == 1 and pa.types.is_fixed_size_list(schema.field(0).type):
        kind = schema.field(0).type
        return _dtype(kind.value_type, schema.field(0).name), (kind.list_size,)
    dtypes = [_dtype(f.type, f.name) for f in schema]
    return storable(np.result_type(*dtypes), "the table"), (len(schema),)


def _dtype(kind: Any, name: str) -> np.dtype:
    try:
        return storable(kind.to_pandas_dtype(), f"column {name}")
    except NotImplementedError as e:
        raise ValueError(f"column {name}: {e}") from None


def _values(column: Any, name: str, dtype: np.dtype) -> np.ndarray:
    if column.null_count:
        if dtype.kind not in "fc":
            raise ValueError(f"column {name} has {column.null_count} nulls, which {dtype} cannot tell")
        return column.to_numpy(zero_copy_only=False).astype(dtype)      # nulls become NaN
    return column.to_numpy(zero_copy_only=False)


def _block(batch: Any, dtype: np.dtype, inner: Tuple[int, ...]) -> np.ndarray:
    """The rows of a record batch."""
    pa = need("pyarrow", "arrow")
    if batch.num_columns == 1 and pa.types.is_fixed_size_list(batch.schema.field(0).type):
        column = batch.column(0)
        if column.null_count:
            raise ValueError(f"column {batch.schema.field(0).name} has nulls")
        return _values(column.flatten(), batch.schema.field(0).name, dtype).reshape((batch.num_rows,) + inner)
    out = np.empty((batch.num_rows,) + inner, dtype)
    for i in range(batch.num_columns):
        out[:, i] = _values(batch.column(i), batch.schema.field(i).name, dtype)
    return out


def _store_batches(npk: NumPack, name: str, schema: Any, batches: Iterator[Any], total: int, progress: Progress) -> None:
    dtype, inner = _layout(schema)
    store_rows(npk, name, dtype, inner, (_block(b, dtype, inner) for b in batches if b.num_rows), total, progress)


def _batch(npk: NumPack, block: np.ndarray, schema: Any) -> Any:
    pa = need("pyarrow", "arrow")
    columns = [block] if block.ndim == 1 else [np.ascontiguousarray(block[:, i]) for i in range(block.shape[1])]
    return pa.record_batch([pa.array(c) for c in columns], schema=schema)


def _schema(npk: NumPack, name: str, column_names: Optional[List[str]] = None) -> Any:
    pa = need("pyarrow", "arrow")
    shape, dtype = npk.get_shape(name), npk.get_dtype(name)
    if len(shape) > 2:
        raise ValueError(f"array {name} has {len(shape)} dimensions, a table 2")
    if dtype.kind == "c":
        raise ValueError(f"array {name} is {dtype}, which tables do not have")
    names = column_names or _columns(name, shape)
    if len(names) != len(_columns(name, shape)):
        raise ValueError(f"{len(names)} column names for {len(_columns(name, shape))} columns")
    return pa.schema([(n, pa.from_numpy_dtype(dtype)) for n in names])


def from_table(table: Any, output_path: PathLike, array_name: Optional[str] = None, columns: Optional[List[str]] = None,
               drop_if_exists: bool = False, chunk_size: int = DEFAULT_CHUNK_SIZE, return_npk_obj: bool = False,
               progress: Progress = None) -> Optional[NumPack]:
    """A pyarrow.Table as the array `array_name` (default: data) of shape (rows, columns), in the dtype that holds all columns.
    ValueError: a column that is not numeric; nulls among integers (among floats they become NaN)."""
    pa = need("pyarrow", "arrow")
    if not isinstance(table, pa.Table):
        raise TypeError(f"Expected pyarrow.Table, got {type(table)}")
    if columns is not None:
        table = table.select(columns)
    dtype, inner = _layout(table.schema)
    n = estimate_chunk_rows((max(1, len(table)),) + inner, dtype, chunk_size)
    with writing(output_path, drop_if_exists) as npk:
        _store_batches(npk, array_name or "data", table.schema, iter(table.to_batches(max_chunksize=n)), len(table), progress)
    return finished(npk, return_npk_obj)


def to_table(input_path: PathLike, array_name: Optional[str] = None, column_names: Optional[List[str]] = None,
             progress: Progress = None) -> Any:
    """An array (default: the only one) of one or two dimensions as a pyarrow.Table. KeyError, ValueError."""
    pa = need("pyarrow", "arrow")
    with opened(input_path) as npk:
        name = the_array(npk, array_name)
        schema = _schema(npk, name, column_names)
        blocks = rows_in_blocks(npk, name, DEFAULT_CHUNK_SIZE, progress)
        return pa.Table.from_batches([_batch(npk, b, schema) for _, b in blocks], schema)


# --- files ---


def from_parquet(input_path: PathLike, output_path: PathLike, array_name: Optional[str] = None, columns: Optional[List[str]] = None,
                 drop_if_exists: bool = False, chunk_size: int = DEFAULT_CHUNK_SIZE, return_npk_obj: bool = False,
                 progress: Progress = None) -> Optional[NumPack]:
    """The numeric columns of a Parquet file as the array `array_name` (default: the file's stem); as from_table()."""
    pq = need("pyarrow.parquet", "arrow")
    with input_file(input_path) as path, pq.ParquetFile(path, memory_map=True) as f:
        schema = f.schema_arrow
        if columns is not None:
            schema = need("pyarrow", "arrow").schema([schema.field(c) for c in columns])
        dtype, inner = _layout(schema)
        rows = f.metadata.num_rows
        n = estimate_chunk_rows((max(1, rows),) + inner, dtype, max(1, chunk_size // 4))      # decoding takes several copies
        with writing(output_path, drop_if_exists) as npk:
            _store_batches(npk, array_name or path.stem, schema, f.iter_batches(n, columns=columns), rows, progress)
    return finished(npk, return_npk_obj)


def to_parquet(input_path: PathLike, output_path: PathLike, array_name: Optional[str] = None, compression: str = "snappy",
               row_group_size: int = 100000, chunk_size: int = DEFAULT_CHUNK_SIZE, column_names: Optional[List[str]] = None,
               progress: Progress = None) -> None:
    """An array (default: the only one) of one or two dimensions, one row group a block of rows."""
    pq, pa = need("pyarrow.parquet", "arrow"), need("pyarrow", "arrow")
    with opened(input_path) as npk:
        name = the_array(npk, array_name)
        schema = _schema(npk, name, column_names)
        with output_file(output_path) as path, pq.ParquetWriter(str(path), schema, compression=compression) as w:
            for _, block in rows_in_blocks(npk, name, chunk_size, progress):
                w.write_table(pa.Table.from_batches([_batch(npk, block, schema)]), row_group_size=row_group_size)


def from_feather(input_path: PathLike, output_path: PathLike, array_name: Optional[str] = None, columns: Optional[List[str]] = None,
                 drop_if_exists: bool = False, return_npk_obj: bool = False, chunk_size: int = DEFAULT_CHUNK_SIZE,
                 progress: Progress = None) -> Optional[NumPack]:
    """The numeric columns of a Feather (Arrow IPC) file as the array `array_name` (default: the file's stem), batch by batch."""
    pa = need("pyarrow", "arrow")
    with input_file(input_path) as path, pa.memory_map(str(path)) as source:
        try:
            reader = pa.ipc.open_file(source)
            batches: Any = (reader.get_batch(i) for i in range(reader.num_record_batches))
            schema = reader.schema
        except pa.ArrowInvalid:      # Feather's first version
            table = need("pyarrow.feather", "arrow").read_table(path, memory_map=True)
            batches, schema = iter(table.to_batches()), table.schema
        if columns is not None:
            batches = (b.select(columns) for b in batches)
            schema = pa.schema([schema.field(c) for c in columns])
        with writing(output_path, drop_if_exists) as npk:
            _store_batches(npk, array_name or path.stem, schema, batches, 0, progress)
    return finished(npk, return_npk_obj)


def to_feather(input_path: PathLike, output_path: PathLike, array_name: Optional[str] = None, compression: Optional[str] = "zstd",
               chunk_size: int = DEFAULT_CHUNK_SIZE, column_names: Optional[List[str]] = None, progress: Progress = None) -> None:
    """An array (default: the only one) of one or two dimensions as a Feather file (version 2), one record batch a block of rows;
    uncompressed (None, "uncompressed") it can be mapped."""
    pa = need("pyarrow", "arrow")
    with opened(input_path) as npk:
        name = the_array(npk, array_name)
        schema = _schema(npk, name, column_names)
        options = pa.ipc.IpcWriteOptions(compression=None if compression == "uncompressed" else compression)
        with output_file(output_path) as path, pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema, options=options) as w:
            for _, block in rows_in_blocks(npk, name, chunk_size, progress):
                w.write_batch(_batch(npk, block, schema))
