"""What goes wrong, as the exceptions that NumPack's documentation names.

=====================================  ================================================================
KeyError (`ArrayNotFoundError`)        there is no array of that name
IndexError                             a row index out of range
ValueError                             nonsense asked: shapes, selections, metrics, names
TypeError                              an index or a dtype of a wrong kind
RuntimeError (`NumPackError`)          the store: closed, read-only, busy, damaged, an I/O error
=====================================  ================================================================
"""

import errno


class NumPackError(RuntimeError):
    """Something about the store itself. `errno` is the code that the library gave, 0 when it was not the library."""

    def __init__(self, message: str, code: int = 0):
        super().__init__(message)
        self.errno = code


class StoreBusyError(NumPackError):
    """Another process writes this store; the message names it, and the mountpoint when it is a mount."""


class ReadOnlyError(NumPackError):
    """The store cannot be written through this handle."""


class CorruptError(NumPackError):
    """The bytes on disk break the format; the message has file, byte and value."""


class StaleError(NumPackError):
    """The array is not the one any more that a graph was made for: rows were dropped, or it was saved anew or compacted."""


class ArrayNotFoundError(KeyError):
    """There is no array of that name."""

    def __init__(self, name: str):
        super().__init__(f"Array not found: {name}")
        self.name = name

    def __reduce__(self):
        return type(self), (self.name,)


class InvalidNameError(ValueError, RuntimeError):
    """A name that NumPack could not read back."""


def from_code(code: int, message: str) -> Exception:
    """The exception for a positive errno and the library's sentence."""
    if code == errno.ENOENT:
        return KeyError(message)
    if code == errno.ERANGE:
        return IndexError(message)
    if code in (errno.EINVAL, errno.EEXIST, errno.E2BIG):
        return ValueError(message)
    if code == errno.ENOMEM:
        return MemoryError(message)
    if code == errno.EBUSY:
        return StoreBusyError(message, code)
    if code == errno.EROFS:
        return ReadOnlyError(message, code)
    if code in (errno.EUCLEAN, errno.ENOTSUP):
        return CorruptError(message, code)
    return NumPackError(message, code)
