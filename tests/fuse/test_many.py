"""A store with 10,000 arrays: a complete listing, and a small daemon."""

import os
import re
import subprocess

import numpy as np
import pytest

from harness import SANITIZED, same
from npkwrite import Spec, write_store

COUNT = 10_000


@pytest.fixture(scope="module")
def many(tmp_path_factory, watchdog):
    from harness import Mounter

    base = tmp_path_factory.mktemp("many")
    arrays = {f"array_{i:05d}": Spec(np.arange(i, i + 6, dtype="i4").reshape(3, 2), deleted=[1] if i % 10 == 0 else None)
              for i in range(COUNT)}
    store, specs = write_store(base / "many.npk", arrays)
    mounter = Mounter(base / "mounts", watchdog, life=3600)
    m = mounter.start(store)
    yield m, specs
    mounter.stop(m)


def anonymous_kib(pid):
    with open(f"/proc/{pid}/status") as f:
        fields = dict(re.findall(r"^(\w+):\s+(\d+) kB", f.read(), re.MULTILINE))
    return int(fields["VmRSS"]) - int(fields["RssFile"])


def test_the_listing_is_complete(many):
    m, specs = many
    want = sorted(n + ".npy" for n in specs)
    assert sorted(os.listdir(m.path)) == want
    assert sorted(os.listdir(m.control() / "arrays")) == sorted(specs)
    assert sorted((m.control() / "members").read_text().splitlines()) == sorted(specs)


def test_ls_tells_all_sizes(many):
    m, specs = many
    out = subprocess.run(["ls", "-l", str(m.path)], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[1:]
    sizes = {line.split()[-1]: int(line.split()[4]) for line in out}
    assert sizes == {n + ".npy": 128 + s.logical().nbytes for n, s in specs.items()}


def test_find_reads_the_directory_to_its_end(many):
    m, specs = many
    with os.scandir(m.path) as it:
        assert sum(e.is_file() for e in it) == COUNT
    out = subprocess.run(["find", str(m.path), "-name", "*.npy", "-size", "-1k"], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert out == "" or len(out.splitlines()) <= COUNT


def test_every_array_has_its_own_bytes(many):
    m, specs = many
    for name in list(specs)[::7]:
        same(m.load(name), specs[name].logical())


def test_the_daemon_stays_small(many):
    """Resident memory beside mappings at most 50 MB, after all of it was listed, looked at and partly read."""
    if SANITIZED:
        pytest.skip("a sanitizer keeps memory of its own")
    m, specs = many
    subprocess.run(["ls", "-l", str(m.path)], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["tar", "cf", "/dev/null", str(m.path)], check=True, stderr=subprocess.DEVNULL)
    for name in list(specs)[::3]:
        m.array(name).read_bytes()
    (m.control() / "metadata").read_bytes()
    used = anonymous_kib(m.pid)
    assert used <= 50 * 1024, f"{used} KiB"


def test_reading_gives_memory_and_files_back(mount, tmp_path):
    """A thousand open, read, close leave no descriptors and no memory behind."""
    x = np.arange(300_000, dtype="f8").reshape(-1, 3)
    store, specs = write_store(tmp_path / "s.npk", {f"a{i}": Spec(x[i:], deleted=[2, 7]) for i in range(4)})
    with mount(store) as m:
        def once(i):
            m.array(f"a{i % 4}").read_bytes()
            with open(m.control(f"a{i % 4}") / "getitem", "r+b", buffering=0) as f:
                f.write(b"sel=::-1\n")
                f.read(1 << 20)
            np.load(m.view(f"a{i % 4}", f"{i}:{i + 50}@0"))
            (m.control(f"a{i % 4}") / "info").read_text()

        for i in range(50):
            once(i)
        before, files = anonymous_kib(m.pid), len(os.listdir(f"/proc/{m.pid}/fd"))
        for i in range(300):
            once(i)
        assert len(os.listdir(f"/proc/{m.pid}/fd")) <= files + 4
        if not SANITIZED:
            assert anonymous_kib(m.pid) <= before + 20 * 1024
