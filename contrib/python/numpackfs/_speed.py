"""The extension module _fast, for what takes longer through ctypes than the work itself. It is optional: `fast` is None where it was
not built, or the environment says NUMPACKFS_FAST=0, and everything works as well, only slower.

It lies beside this file when it was installed, and beside the library that LIBNUMPACK names in the source tree.
"""

import importlib.machinery
import importlib.util
import os
import pathlib
from typing import Any

SUFFIX = ".abi3.so"


def _find():
    """The module's file, or None."""
    if os.environ.get("NUMPACKFS_FAST") == "0" or SUFFIX not in importlib.machinery.EXTENSION_SUFFIXES:
        return None
    named = os.environ.get("LIBNUMPACK")
    for place in ([pathlib.Path(named).parent] if named else []) + [pathlib.Path(__file__).parent]:
        path = place / f"_fast{SUFFIX}"
        if path.exists():
            return path
    return None


def _load():
    path = _find()
    if path is None:
        return None
    spec: Any = importlib.util.spec_from_file_location(f"{__package__}._fast", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _address(a):
    return a.ctypes.data


fast = _load()
address = _address if fast is None else fast.address      # where the bytes of a C-contiguous array begin
