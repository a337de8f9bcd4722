"""A Go and a Node program read mounted files with ordinary libraries of their registries; the sums are those of numpy."""

import json
import os
import shutil
import subprocess

import numpy as np
import pytest

from harness import ROOT, TESTS, clean_environment
from npkwrite import Spec, write_store

NAMES = ["i2", "i4", "i8", "u1", "f4", "f8"]


@pytest.fixture
def numbers(tmp_path, mount):
    rng = np.random.default_rng(29)
    store, specs = write_store(tmp_path / "s.npk", {
        d: Spec(rng.integers(0, 100, (300, 5, 2)).astype(d), deleted=sorted(rng.choice(300, 77, False).tolist())) for d in NAMES})
    with mount(store) as m:
        yield m, {d: s.logical() for d, s in specs.items()}


def check(line, arrays):
    got = json.loads(line)
    want = arrays[got["name"][:-4]]
    assert got["shape"] == list(want.shape) and got["dtype"].lstrip("<|") == got["name"][:-4], got
    assert got["sum"] == float(want.astype("f8").sum()) and got["last"] == float(want.reshape(-1)[-1]), got


def fetched(argv, cwd, env=None):
    """Runs a package manager. What it fetches stays under build/; an unreachable registry skips the test and says so."""
    done = subprocess.run(argv, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
    if done.returncode:
        offline = ("dial tcp", "no such host", "ENOTFOUND", "ECONNREFUSED", "ETIMEDOUT", "EAI_AGAIN", "connection refused", "i/o timeout",
                   "disabled by GOPROXY", "ENOTCACHED")
        if any(word in done.stdout for word in offline):
            pytest.skip(f"{argv[0]} cannot reach its registry: {' '.join(done.stdout.split())[-200:]}")
        raise AssertionError(f"{argv}: {done.stdout[-3000:]}")


# Packages are fetched and Go's library is compiled the first time.
@pytest.mark.timeout(600)
def test_go(numbers, tmp_path):
    if not shutil.which("go"):
        pytest.skip("go is not installed")
    m, arrays = numbers
    shutil.copytree(TESTS / "clients" / "go", tmp_path / "go")
    cache = ROOT / "build" / "go"
    env = {**os.environ, "GOFLAGS": "-modcacherw -buildvcs=false", "GOPATH": str(cache), "GOCACHE": str(cache / "cache"),
           "HOME": str(tmp_path), "GOTOOLCHAIN": "local"}
    fetched(["go", "build", "-o", str(tmp_path / "client"), "."], tmp_path / "go", env)
    out = subprocess.run([str(tmp_path / "client"), *(str(m.array(n)) for n in NAMES), str(m.control("i4") / "getitem")], check=True,
                         stdout=subprocess.PIPE, text=True, env=clean_environment(tmp_path)).stdout.splitlines()
    assert len(out) == len(NAMES) + 1
    for line in out[:-1]:
        check(line, arrays)
    conversation = [[int(n) for n in line.replace(",", " ").split()] for line in json.loads(out[-1]).splitlines()]
    assert conversation == arrays["i4"][:3].reshape(3, -1).tolist()


@pytest.mark.timeout(600)
def test_node(numbers, tmp_path):
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node or npm is not installed")
    m, arrays = numbers
    client = tmp_path / "node"
    shutil.copytree(TESTS / "clients" / "node", client)
    fetched(["npm", "ci", "--prefer-offline", "--cache", str(ROOT / "build" / "npm")], client)
    out = subprocess.run(["node", "read.mjs", *(str(m.array(n)) for n in NAMES)], cwd=client, check=True, stdout=subprocess.PIPE,
                         text=True).stdout.splitlines()
    assert len(out) == len(NAMES)
    for line in out:
        check(line, arrays)
