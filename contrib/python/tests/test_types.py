"""The type hints, as mypy understands them: the package itself, and a program of a user in strict mode."""

import os
import subprocess
import sys

import pytest

from harness import ROOT

PACKAGE = ROOT / "contrib" / "python"
RIGHT = """
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple
import numpy as np
from numpackfs import LazyArray, NumPack, get_backend_info, get_package_info, pack, unpack
from numpackfs.io import from_npy, to_npy
from numpackfs.vector_engine import StreamingVectorEngine, VectorEngine

Array = np.ndarray[Any, Any]

def first(path: Path, how: bool) -> Array:
    with NumPack(path, drop_if_exists=True) as npk:
        npk.save({"x": np.zeros((4, 3)), "l": np.arange(4)})
        npk.append({"x": np.ones((2, 3))})
        npk.replace({"x": np.ones(3)}, 0)
        npk.replace({"x": np.ones((2, 3))}, np.array([0, 1]))
        npk.drop("x", slice(0, 1))
        npk.drop(["l"])
        names: List[str] = npk.get_member_list()
        shape: Tuple[int, ...] = npk.get_shape("x")
        time: Optional[int] = npk.get_modify_time("x")
        about: Dict[str, Any] = npk.get_metadata()
        lazy: LazyArray = npk.load("x", lazy=True)
        eager: Array = npk.load("x")
        either = npk.load("x", how)
        if isinstance(either, LazyArray):
            print(either.shape)
        made: Array = lazy[1:3] + (lazy * 2)[0] - lazy.sum() / (-lazy).mean()
        bits: Array = (lazy > 1) & (lazy < 2)
        flat: LazyArray = lazy.reshape(-1)
        for batch in npk.stream_load("x", buffer_size=2):
            made = made + batch
        for name in npk:
            print(name, names, shape, time, about, npk[name].T, flat, bits, np.asarray(lazy))
        with npk.batch_mode(memory_limit=10):
            npk.save({"x": eager * 2})
        with npk.writable_batch_mode() as wb:
            a = wb.load("x")
            a += 1
        return npk.getitem("x", [0, 1])

package: Path = pack("a.npk", overwrite=True)
store: Path = unpack(package, verify=False)
print(get_package_info(package)["files"], get_backend_info()["platform"])
rows, scores = VectorEngine().top_k_search(np.ones(3), np.ones((5, 3)), "cosine", k=2)
rows, scores = StreamingVectorEngine().streaming_top_k_from_file(np.ones(3), store, "x", "l2", 2)
opened: Optional[NumPack] = from_npy("a.npy", "a.npk", return_npk_obj=True)
to_npy("a.npk", Path("b.npz"), progress=lambda done, total: None)
"""
WRONG = ["NumPack(3)", "npk.load(5)", "npk.save([1])", "npk.load('x', lazy=True).nonsense", "npk.load('x').get_shape", "npk.drop(3)",
         "len(npk.get_modify_time('x'))", "npk.get_shape('x') + [1]", "npk.stream_load('x', buffer_size='a')", "pack(1)",
         "npk.batch_mode(memory_limit='1')", "VectorEngine().top_k_search(1, 2, 'l2')"]


@pytest.fixture(scope="module")
def mypy(tmp_path_factory):
    """mypy(option, ..., file): its status and what it says."""
    cache = tmp_path_factory.mktemp("mypy")
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def run(*argv):
        done = subprocess.run([sys.executable, "-m", "mypy", f"--cache-dir={cache}", "--ignore-missing-imports", "--follow-imports=silent",
                               *map(str, argv)], cwd=cache, env={**env, "MYPYPATH": str(PACKAGE)}, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    return run


def test_the_package(mypy):
    status, said = mypy("--check-untyped-defs", PACKAGE / "numpackfs")
    assert status == 0, said


def test_a_strict_program_passes(tmp_path, mypy):
    (tmp_path / "right.py").write_text(RIGHT)
    status, said = mypy("--strict", tmp_path / "right.py")
    assert status == 0, said


def test_each_wrong_line_is_told(tmp_path, mypy):
    head = "from numpackfs import NumPack, pack\nfrom numpackfs.vector_engine import VectorEngine\nnpk = NumPack('a')\n"
    (tmp_path / "wrong.py").write_text(head + "\n".join(WRONG) + "\n")
    status, said = mypy("--strict", tmp_path / "wrong.py")
    told = {int(line.split(":")[1]) for line in said.splitlines() if "error:" in line}
    assert status == 1 and told == set(range(4, 4 + len(WRONG))), said
