"""npk import and export tell how far they are: on a terminal, and nowhere else."""

import os
import pty
import re
import subprocess
import sys

import numpy as np
import pytest

from harness import PATIENCE, program
from npkrun import OK, good

ROWS = 60_000    # of 8 float64: some blocks of 1 MiB


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store, and its one array in every format."""
    base = tmp_path_factory.mktemp("progress")
    x = np.arange(ROWS * 8, dtype="<f8").reshape(ROWS, 8)
    np.save(base / "x.npy", x)
    good("create", base / "s.npk")
    good("save", base / "s.npk", base / "x.npy")
    np.savez(base / "x.npz", x=x)
    np.savez_compressed(base / "z.npz", x=x)
    x.tofile(base / "x.raw")
    for name in ("x.csv", "x.safetensors"):
        good("export", base / "s.npk", base / name, "x")
    return base, x


def told(*args, stdout=None):
    """What appears on the terminal that is standard error, and, unless it is given, standard output."""
    parent, child = pty.openpty()
    process = subprocess.Popen([str(program("npk")), *map(str, args)], stdout=child if stdout is None else stdout, stderr=child)
    os.close(child)
    shown = b""
    try:
        while got := os.read(parent, 65536):
            shown += got
    except OSError:     # EIO: the other end is closed
        pass
    os.close(parent)
    assert process.wait(PATIENCE) == OK, shown
    return shown


def check_bar(shown, what):
    percents = [int(p) for p in re.findall(rf"\r{what} \[[# ]{{40}}\] +(\d+) %".encode(), shown)]
    assert percents == sorted(set(percents)) and percents[-1] == 100 and len(percents) >= 3, shown
    assert shown.endswith(b"\r\x1b[K")


@pytest.mark.parametrize("name,options", [("x.npy", []), ("x.npz", []), ("z.npz", []), ("x.csv", []), ("x.safetensors", []),
                                          ("x.raw", ["--dtype", "float64", "--row-shape", "8"])])
def test_import(name, options, made, tmp_path):
    base, x = made
    good("create", tmp_path / "t.npk")
    check_bar(told("import", tmp_path / "t.npk", base / name, *options), "importing")
    good("get", tmp_path / "t.npk", "x", "-o", tmp_path / "y.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), x)
    done = subprocess.run([str(program("npk")), "import", str(tmp_path / "t.npk"), str(base / name), *options], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (OK, b"", b"")


@pytest.mark.parametrize("name,options", [("x.npy", []), ("x.npz", []), ("x.npz", ["-z", "1"]), ("x.csv", []), ("x.safetensors", []),
                                          ("x.raw", [])])
def test_export(name, options, made, tmp_path):
    base, _ = made
    check_bar(told("export", base / "s.npk", tmp_path / name, "x", *options), "exporting")
    done = subprocess.run([str(program("npk")), "export", str(base / "s.npk"), str(tmp_path / ("2" + name)), "x", *options],
                          capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (OK, b"", b"")
    assert (tmp_path / name).read_bytes() == (tmp_path / ("2" + name)).read_bytes()


def test_a_pipe_tells_no_size(made, tmp_path):
    base, x = made
    good("create", tmp_path / "t.npk")
    code = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:-1], stdin=subprocess.Popen(['cat', sys.argv[-1]], " \
        "stdout=subprocess.PIPE).stdout).returncode)"
    words = [program("npk"), "import", tmp_path / "t.npk", "-", "-f", "raw", "-t", "f8", "-n", "x"]
    parent, child = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, words), str(base / "x.raw")], stderr=child)
    os.close(child)
    with pytest.raises(OSError):    # EIO: nothing came before the end
        os.read(parent, 1)
    os.close(parent)
    assert process.wait(PATIENCE) == OK


def test_lines_on_the_terminal_have_no_bar_between_them(made):
    shown = told("export", made[0] / "s.npk", "-", "x", "-f", "csv", "--rows", "0:2")
    assert shown == b"0,1,2,3,4,5,6,7\r\n8,9,10,11,12,13,14,15\r\n"
