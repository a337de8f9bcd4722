"""Puts libnumpack into the wheel, and where a C compiler and the headers of Python 3.11 or later are at hand the extension module
_fast, without which the package is slower.

Inside the source tree the library is built by its Makefile; elsewhere the one that pkg-config knows is copied. Where there is
neither, the build ends with a message: a wheel without the library would only fail later. LIBNUMPACK names a built
library instead; NUMPACKFS_BUNDLE=0 leaves it out, for distributions that package libnumpack themselves.
"""

import os
import pathlib
import shutil
import subprocess

from setuptools import Extension, setup
from setuptools.command.build_py import build_py
from setuptools.dist import Distribution

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SONAME = "libnumpack.so.0"


def from_tree():
    if not (ROOT / "engine" / "numpack.h").exists():
        return None
    target = "build/release/libnumpack.so"
    # MAKEFLAGS of a make that runs us, and its flags, are not for this one.
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "CFLAGS", "LDFLAGS")}
    try:
        done = subprocess.run(["make", "--no-print-directory", "-C", str(ROOT), f"-j{os.cpu_count() or 1}", "MODE=release", target], env=env)
    except FileNotFoundError:
        raise SystemExit(f"numpackfs builds libnumpack in {ROOT}, for which make is missing; a built one can be named in LIBNUMPACK") from None
    if done.returncode != 0:
        raise SystemExit(f"numpackfs builds libnumpack in {ROOT}, and that failed: make's output above says why. It needs gcc, "
                         "pkg-config and the development files of zstd and zlib; a built one can be named in LIBNUMPACK")
    return ROOT / target


def from_system():
    try:
        done = subprocess.run(["pkg-config", "--variable=libdir", "libnumpack"], capture_output=True, text=True)
    except FileNotFoundError:
        return None
    found = pathlib.Path(done.stdout.strip()) / SONAME
    return found.resolve() if done.returncode == 0 and found.exists() else None


def include_dirs():
    """Where numpack.h is. Empty: in a place that the compiler knows, or nowhere."""
    if (ROOT / "engine" / "numpack.h").exists():
        return [str(ROOT / "engine")]
    try:
        done = subprocess.run(["pkg-config", "--variable=includedir", "libnumpack"], capture_output=True, text=True)
    except FileNotFoundError:
        return []
    return done.stdout.split() if done.returncode == 0 else []


def library():
    named = os.environ.get("LIBNUMPACK")
    if named:
        if not os.path.isfile(named):
            raise SystemExit(f"LIBNUMPACK: {named} is no file")
        return pathlib.Path(named)
    found = from_tree() or from_system()
    if found is None:
        raise SystemExit("numpackfs needs libnumpack: build inside its source tree, or install it so that pkg-config finds it "
                         "(make install), or name it in LIBNUMPACK")
    return found


class Build(build_py):
    def run(self):
        # What an earlier build of this tree left would go into the wheel, with files that are no more.
        shutil.rmtree(pathlib.Path(self.build_lib) / "numpackfs", ignore_errors=True)
        super().run()
        if os.environ.get("NUMPACKFS_BUNDLE", "1") != "0":
            target = pathlib.Path(self.build_lib) / "numpackfs" / SONAME
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(library(), target)


class Binary(Distribution):
    """A wheel with a library in it belongs to one platform, although to any Python."""

    def has_ext_modules(self):
        return os.environ.get("NUMPACKFS_BUNDLE", "1") != "0"


commands = {"build_py": Build}
try:
    from wheel.bdist_wheel import bdist_wheel

    class Wheel(bdist_wheel):
        def get_tag(self):
            _, _, platform = super().get_tag()
            return "py3", "none", platform

    commands["bdist_wheel"] = Wheel
except ImportError:      # setuptools 70.1 and later have their own
    from setuptools.command.bdist_wheel import bdist_wheel

    class Wheel(bdist_wheel):
        def get_tag(self):
            _, _, platform = super().get_tag()
            return "py3", "none", platform

    commands["bdist_wheel"] = Wheel

FAST = Extension("numpackfs._fast", ["numpackfs/_fast.c"], include_dirs=include_dirs(), py_limited_api=True, optional=True)

setup(cmdclass=commands, distclass=Binary, ext_modules=[FAST])
