"""NumPack array stores, through libnumpack.

    from numpackfs import NumPack

    with NumPack("data.npk") as npk:
        npk.save({"x": x})
        row = npk.getitem("x", 7)

The classes and functions are those that NumPack's documentation describes; a program written for it changes the import. Where
NumPack's own library does otherwise than its documentation, or is wrong, README.md says what is done here.
"""

from typing import Any, Dict

from ._version import __version__
from .batch import BatchModeContext, WritableBatchMode
from .core import NumPack
from .errors import ArrayNotFoundError, CorruptError, InvalidNameError, NumPackError, ReadOnlyError, StoreBusyError
from .lazy import LazyArray
from .package import get_package_info, pack, unpack

__all__ = [
    "NumPack", "LazyArray", "BatchModeContext", "WritableBatchMode", "pack", "unpack", "get_package_info", "get_backend_info",
    "force_cleanup_windows_handles", "ArrayNotFoundError", "CorruptError", "InvalidNameError", "NumPackError", "ReadOnlyError",
    "StoreBusyError", "__version__",
]


def get_backend_info() -> Dict[str, Any]:
    """{"backend_type": "rust", "platform": "Linux", "is_windows": False, "version", "library": version of libnumpack}"""
    import platform

    from ._lib import lib

    return {"backend_type": "rust", "platform": platform.system(), "is_windows": False, "version": __version__,
            "library": lib.npk_version().decode()}


def force_cleanup_windows_handles() -> bool:
    """There is nothing to clean up here. True."""
    return True
