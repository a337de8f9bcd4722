"""Conversions between stores and other formats, memory and files, in bounded memory.

    from numpackfs.io import from_parquet, to_safetensors_file

    from_parquet("data.parquet", "data.npk", array_name="features", drop_if_exists=True)
    to_safetensors_file("data.npk", "data.safetensors")

Imports add to the store `output_path`, or make it; an array appears whole or not at all. Exports replace the file whole or not at
all. All take paths and, with fsspec, URLs; `chunk_size` bytes of rows are in memory at a time; `progress(done, total)` is called
with rows. Each format's library is an extra (`pip install 'numpackfs[arrow]'`); DependencyError says which one is missing.

Every name that NumPack's versions used is here: those of 0.5 (from_numpy, from_torch, from_torch_file, from_arrow, from_pytorch) and
those of 0.6 and later (from_npy, from_tensor, from_pt, from_table).
"""

from .arrays import (from_npy, from_pt, from_safetensors, from_safetensors_file, from_tensor, get_safetensors_metadata,
                     iter_safetensors, to_npy, to_pt, to_safetensors, to_safetensors_file, to_tensor)
from .common import (DEFAULT_CHUNK_SIZE, LARGE_FILE_THRESHOLD, DependencyError, estimate_chunk_rows, get_file_size, is_large_file)
from .formats import export_file, format_of, import_file
from .groups import from_hdf5, from_zarr, to_hdf5, to_zarr
from .remote import from_s3, from_url, to_s3, to_url
from .tables import from_feather, from_pandas, from_parquet, from_table, to_feather, to_pandas, to_parquet, to_table
from .text import from_csv, from_txt, to_csv, to_txt
from ..package import get_package_info, pack, unpack

from_numpy, to_numpy = from_npy, to_npy
from_torch, to_torch = from_tensor, to_tensor
from_torch_file = from_pytorch = from_pt
to_torch_file = to_pytorch = to_pt
from_arrow = from_parquet_table = from_table
to_arrow = to_parquet_table = to_table
from_parquet_file, to_parquet_file = from_parquet, to_parquet
from_feather_file, to_feather_file = from_feather, to_feather

__all__ = [      # a literal: type checkers read it
    "DEFAULT_CHUNK_SIZE", "DependencyError", "LARGE_FILE_THRESHOLD", "estimate_chunk_rows", "export_file", "format_of",
    "from_arrow", "from_csv", "from_feather", "from_feather_file", "from_hdf5", "from_npy", "from_numpy", "from_pandas",
    "from_parquet", "from_parquet_file", "from_parquet_table", "from_pt", "from_pytorch", "from_s3", "from_safetensors",
    "from_safetensors_file", "from_table", "from_tensor", "from_torch", "from_torch_file", "from_txt", "from_url", "from_zarr",
    "get_file_size", "get_package_info", "get_safetensors_metadata", "import_file", "is_large_file", "iter_safetensors", "pack",
    "to_arrow", "to_csv", "to_feather", "to_feather_file", "to_hdf5", "to_npy", "to_numpy", "to_pandas", "to_parquet",
    "to_parquet_file", "to_parquet_table", "to_pt", "to_pytorch", "to_s3", "to_safetensors", "to_safetensors_file", "to_table",
    "to_tensor", "to_torch", "to_torch_file", "to_txt", "to_url", "to_zarr", "unpack",
]
