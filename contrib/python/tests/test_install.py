"""As a user has it: installed by pip into an empty environment, nothing of the source tree in reach."""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest

from harness import ROOT

PACKAGE = ROOT / "contrib" / "python"
OURS = ("LIBNUMPACK", "PYTHONPATH", "MAKEFLAGS", "PYTHONDONTWRITEBYTECODE", "NPK_BUILD")
CLEAN = {k: v for k, v in os.environ.items() if k not in OURS}


def run(*argv, env=CLEAN, **kw):
    done = subprocess.run([str(a) for a in argv], env=env, capture_output=True, text=True, **kw)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps", "-w", out, PACKAGE)
    found = list(out.iterdir())
    assert len(found) == 1
    return found[0]


def test_the_wheel_has_everything_and_the_library(wheel):
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert wheel.name.endswith(f"-py3-none-{platform}.whl")
    with zipfile.ZipFile(wheel) as z:
        inside = {i.filename: i.file_size for i in z.infolist() if ".dist-info/" not in i.filename}
    modules = {str(p.relative_to(PACKAGE)) for p in (PACKAGE / "numpackfs").rglob("*.py")}
    assert set(inside) - {"numpackfs/_fast.abi3.so"} == modules | {"numpackfs/py.typed", "numpackfs/libnumpack.so.0"}
    assert inside["numpackfs/libnumpack.so.0"] > 100_000


def test_pip_builds_the_library_of_a_fresh_tree(tmp_path):
    """A tree in which nothing was built, on a machine that has what the library needs, and not what the daemon needs besides."""
    tree = tmp_path / "tree"
    for part in ("engine", "simd", "contrib/python/numpackfs"):
        shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("Makefile", *(f"contrib/python/{n}" for n in ("setup.py", "pyproject.toml", "README.md"))):
        shutil.copy(ROOT / part, tree / part)
    (tmp_path / "bin").mkdir()
    real = shutil.which("pkg-config")
    (tmp_path / "bin" / "pkg-config").write_text(f'#!/bin/sh\ncase "$*" in *fuse3*|*inih*) exit 1;; esac\nexec {real} "$@"\n')
    (tmp_path / "bin" / "pkg-config").chmod(0o755)
    env = {**CLEAN, "PATH": f"{tmp_path / 'bin'}:{CLEAN['PATH']}"}
    run(sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps", "-w", tmp_path / "out",
        tree / "contrib" / "python", env=env)
    with zipfile.ZipFile(next((tmp_path / "out").iterdir())) as z:
        assert z.getinfo("numpackfs/libnumpack.so.0").file_size > 100_000


PROGRAM = """
import numpy as np
from numpackfs import NumPack
x = np.arange(12.0).reshape(4, 3)
with NumPack("data.npk") as npk:
    npk.save({"x": x})
    npk.append({"x": x * 2})
    npk.drop("x", 0)
with NumPack("data.npk") as npk:
    assert (npk.load("x") == np.concatenate([x[1:], x * 2])).all()
    print(npk.getitem("x", -1).tolist(), npk)
"""


def test_pip_installs_it_into_an_empty_environment(tmp_path):
    venv.create(tmp_path / "v", with_pip=True)
    python = tmp_path / "v" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", PACKAGE)
    assert run(python, "-c", PROGRAM, cwd=tmp_path) == "[18.0, 20.0, 22.0] NumPack(data.npk, arrays=1, backend=rust)\n"
    assert str(tmp_path / "v") in run(python, "-c", "import numpackfs; print(numpackfs.__file__)", cwd=tmp_path)
    assert "No broken requirements" in run(python, "-m", "pip", "check", "--disable-pip-version-check")


CONVERT = """
import sys
import numpy as np, pandas as pd, pyarrow as pa, torch
import numpackfs
from numpackfs import NumPack, io
assert numpackfs.__file__.startswith(sys.argv[1]), numpackfs.__file__
x = np.random.default_rng(1).random((500, 4))
with NumPack("s.npk") as n:
    n.save({"x": x})

def equal(path):
    with NumPack(path) as n:
        (name,) = n
        got = n.load(name)
    assert got.shape == x.shape and (got == x).all(), path

for kind, suffix in dict(npy="npy", npz="npz", csv="csv", txt="txt", safetensors="safetensors", parquet="parquet", feather="feather",
                         hdf5="h5", zarr="zarr", pytorch="pt").items():
    told = []
    io.export_file("s.npk", f"x.{suffix}", kind, chunk_size=4000, progress=lambda *a: told.append(a))
    assert told[-1] == (500, 500) and len(told) > 2, (kind, told)
    told.clear()
    io.import_file(f"x.{suffix}", f"{kind}.npk", kind, chunk_size=4000, progress=lambda *a: told.append(a))
    assert told[-1] == (500, 500) and len(told) > (kind == "feather") * 2, (kind, told)
    equal(f"{kind}.npk")
    print(kind)
for kind in ("tensor", "table", "pandas", "safetensors", "torch", "arrow"):
    value = getattr(io, "to_" + kind)("s.npk")
    getattr(io, "from_" + kind)(value, f"of_{kind}.npk")
    equal(f"of_{kind}.npk")
    print(kind)
io.to_npy("s.npk", "memory://b/x.npy")
io.from_npy("memory://b/x.npy", "memory.npk")
equal("memory.npk")
import s3fs, numpackfs.dask
print("all")
"""


def test_the_extra_all_is_what_every_converter_needs(tmp_path, wheel):
    """Installed from the wheel, beside the libraries of this environment and without looking for others: pip finds nothing
    missing, and each format goes both ways with equal values."""
    venv.create(tmp_path / "v", with_pip=True)
    python = tmp_path / "v" / "bin" / "python"
    site = pathlib.Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    for i, path in enumerate({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}):
        (site / f"others{i}.pth").write_text(path + "\n")
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-index", f"{wheel}[all]")
    told = run(python, "-c", CONVERT, tmp_path / "v", cwd=tmp_path).split()
    assert len(told) == 17 and told[-1] == "all"


@pytest.mark.parametrize("case, said", [
    ("no make", "make is missing"), ("make fails", "make's output above says why"), ("no library", "needs libnumpack"),
    ("no such library", "is no file")])
def test_the_build_says_what_it_misses(tmp_path, case, said):
    """The one step of a wheel's build that needs the library, where there is none."""
    tree = tmp_path / "tree"
    package = tree / "contrib" / "python"
    package.mkdir(parents=True)
    (package / "setup.py").write_text((PACKAGE / "setup.py").read_text())
    env = {**CLEAN, "PATH": str(tmp_path / "bin"), "PKG_CONFIG_LIBDIR": str(tmp_path)}
    (tmp_path / "bin").mkdir()
    if case == "no such library":
        env["LIBNUMPACK"] = str(tmp_path / "lib.so")
    elif case != "no library":
        (tree / "engine").mkdir()
        (tree / "engine" / "numpack.h").write_text("")
        if case == "make fails":
            (tmp_path / "bin" / "make").write_text("#!/bin/sh\nexit 2\n")
            (tmp_path / "bin" / "make").chmod(0o755)
    call = "import sys; sys.argv = ['setup.py', '--version']; import runpy; m = runpy.run_path('setup.py'); m['library']()"
    done = subprocess.run([sys.executable, "-c", call], cwd=package, env=env, capture_output=True, text=True)
    assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
