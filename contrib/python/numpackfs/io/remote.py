"""Files behind URLs: s3:// and whatever else fsspec knows. They pass through a temporary file on this machine, not through memory.
The other converters take URLs as well; these also take options for the filesystem."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from ..core import NumPack
from .common import DEFAULT_CHUNK_SIZE, PathLike, Progress, input_file, output_file
from .formats import export_file, format_of, import_file


def from_url(url: str, output_path: PathLike, format: str = "auto", drop_if_exists: bool = False,
             chunk_size: int = DEFAULT_CHUNK_SIZE, return_npk_obj: bool = False, array_name: Optional[str] = None,
             progress: Progress = None, **storage_options: Any) -> Optional[NumPack]:
    """Imports the file or directory at `url`, in the format that its suffix tells, or `format`. FileNotFoundError; ValueError: an
    unknown format; DependencyError: fsspec, or what it needs for this kind of URL, is missing."""
    kind = format_of(url, format)
    with input_file(url, storage_options) as path:
        return import_file(path, output_path, kind, [array_name] if array_name else [], drop_if_exists=drop_if_exists,
                           chunk_size=chunk_size, return_npk_obj=return_npk_obj, progress=progress)


def to_url(input_path: PathLike, url: str, format: str = "auto", array_name: Optional[str] = None,
           chunk_size: int = DEFAULT_CHUNK_SIZE, progress: Progress = None, **storage_options: Any) -> None:
    """Exports to `url`, in the format that its suffix tells, or `format`. Errors as of from_url()."""
    kind = format_of(url, format)
    with output_file(url, storage_options) as path:
        export_file(input_path, path, kind, [array_name] if array_name else [], chunk_size=chunk_size, progress=progress)


def _s3(path: str) -> str:
    if not str(path).startswith("s3://"):
        raise ValueError(f"{path}: is no s3:// URL")
    return path


def from_s3(s3_path: str, output_path: PathLike, format: str = "auto", drop_if_exists: bool = False,
            chunk_size: int = DEFAULT_CHUNK_SIZE, return_npk_obj: bool = False, **s3_kwargs: Any) -> Optional[NumPack]:
    """from_url() for s3://bucket/key, with its array_name and progress; the other `s3_kwargs` go to s3fs (anon=True, key=...,
    endpoint_url=...)."""
    return from_url(_s3(s3_path), output_path, format, drop_if_exists, chunk_size, return_npk_obj, **s3_kwargs)


def to_s3(input_path: PathLike, s3_path: str, format: str = "auto", array_name: Optional[str] = None,
          chunk_size: int = DEFAULT_CHUNK_SIZE, **s3_kwargs: Any) -> None:
    """to_url() for s3://bucket/key, with its progress; the other `s3_kwargs` go to s3fs."""
    to_url(input_path, _s3(s3_path), format, array_name, chunk_size, **s3_kwargs)
