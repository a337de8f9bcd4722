"""The package's version is that of the library it is written for."""

__version__ = "0.1.0"
