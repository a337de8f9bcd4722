"""Directories that somebody prepared to do harm, and files that change under a mount: an error for that array, nothing
opened that does not belong to the store, and a daemon that lives on."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest

from harness import expect_error, same, untouched, wait_for
from npkwrite import Spec, write_store

GOOD = np.arange(1000, dtype="f8").reshape(100, 10)
VICTIM = np.arange(50_000, dtype="i8")
BIG = np.arange(3_000_000, dtype="i8")     # more than any program reads ahead


def make(base, victim):
    return write_store(base / "s.npk", {"good": GOOD, "victim": victim})[0]


def outside(base):
    """A file beside the store with the right size: only a reader that follows the path out sees it."""
    path = base / "outside.npkd"
    path.write_bytes(b"\x42" * VICTIM.nbytes)
    return path


def check_refused(m, code=errno.EUCLEAN):
    expect_error(code, os.open, m.array("victim"), os.O_RDONLY)
    assert m.array("victim").stat().st_size == 0
    same(m.load("good"), GOOD)


@pytest.mark.parametrize("name", ["../outside.npkd", "./data_victim.npkd", "a/../data_victim.npkd", "data_victim.npkd/", "",
                                  "/etc/passwd", "data_vi\0ctim.npkd"])
def test_a_data_file_name_that_is_no_plain_path(name, mount, tmp_path):
    outside(tmp_path)
    store = make(tmp_path, Spec(VICTIM, data_file=name))
    with untouched(tmp_path / "s.npk"), mount(store) as m:
        check_refused(m)


def test_a_symbolic_link_for_a_data_file(mount, tmp_path):
    target = outside(tmp_path)
    store = make(tmp_path, Spec(VICTIM, write_data=False))
    (store / "data_victim.npkd").symlink_to(target)
    with mount(store) as m:
        check_refused(m)


def test_a_symbolic_link_for_a_segment_directory(mount, tmp_path):
    store = make(tmp_path, Spec(VICTIM, segment_rows=10_000))
    (store / "data_victim_segments").rename(tmp_path / "elsewhere")
    (store / "data_victim_segments").symlink_to(tmp_path / "elsewhere")
    with mount(store) as m:
        check_refused(m)


@pytest.mark.parametrize("file", ["data_victim.npkd", "deleted_victim.npkb", "data_victim.npkseg"])
@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "socket"])
def test_something_else_than_a_file(file, kind, mount, tmp_path):
    """A FIFO must not hang the daemon, a device must not be opened."""
    spec = Spec(VICTIM, deleted=[1], segment_rows=10_000 if file.endswith("seg") else 0)
    store = make(tmp_path, spec)
    (store / file).unlink()
    if kind == "fifo":
        os.mkfifo(store / file)
    elif kind == "directory":
        (store / file).mkdir()
    elif kind == "socket":
        import socket
        here = os.getcwd()
        os.chdir(store)     # a socket's path is limited to 108 bytes
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.bind(file)
        finally:
            os.chdir(here)
    elif os.getuid() == 0:
        os.mknod(store / file, 0o600 | 0o020000, os.makedev(1, 5))
    else:
        pytest.skip("only root can make a device")
    with mount(store) as m:
        check_refused(m)


def test_a_fifo_for_the_metadata(mount, tmp_path):
    store = make(tmp_path, VICTIM)
    (store / "metadata.npkm").unlink()
    os.mkfifo(store / "metadata.npkm")
    status, message = mount.refused(store)
    assert status == 2 and "metadata.npkm" in message and len(message.splitlines()) == 1


def test_a_data_file_that_nobody_may_read(mount, tmp_path):
    """Root's daemon goes without the right to read everything."""
    store = make(tmp_path, VICTIM)
    (store / "data_victim.npkd").chmod(0)
    bound = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    with mount(store, under=bound) as m:
        expect_error(errno.EACCES, os.open, m.array("victim"), os.O_RDONLY)
        same(m.load("good"), GOOD)


def test_shapes_that_overflow(mount, tmp_path):
    """Sizes are computed with care: 2^32 x 2^32 x 8 is not 0."""
    store = make(tmp_path, VICTIM)
    raw = (store / "metadata.npkm").read_bytes()
    at = raw.rindex(len(VICTIM).to_bytes(8, "little"))
    for rows in (2**61, 2**63, 2**64 - 1, 2**40):
        (store / "metadata.npkm").write_bytes(raw[:at] + rows.to_bytes(8, "little") + raw[at + 8:])
        with mount(store) as m:
            check_refused(m)


READER = """
import sys, numpy as np
x = np.load(sys.argv[1], mmap_mode="r")
print(x[0], flush=True)
sys.stdin.readline()
print(int(np.asarray(x).sum()), flush=True)
"""


@pytest.mark.parametrize("deleted", [None, list(range(0, len(BIG), 3))], ids=["whole", "deleted"])
@pytest.mark.parametrize("left", [0, 8 * 1000])
def test_a_file_that_shrinks_while_it_is_mapped(deleted, left, mount, tmp_path):
    """The reader gets an error (SIGBUS for a map, EIO for a read); the daemon and every other array go on."""
    store = make(tmp_path, Spec(BIG, deleted=deleted))
    with mount(store) as m:
        with open(m.array("victim"), "rb", buffering=0) as open_before:
            reader = subprocess.Popen([sys.executable, "-c", READER, str(m.array("victim"))], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, text=True)
            assert reader.stdout.readline().strip() == ("0" if deleted is None else "1")
            os.truncate(store / "data_victim.npkd", left)
            reader.stdin.write("\n")
            reader.stdin.close()
            said = reader.stdout.read()
            assert reader.wait() == -7 and said == "", f"status {reader.returncode}, sum {said!r}"
            # Far from what may be in the page cache already.
            expect_error(errno.EIO, os.pread, open_before.fileno(), 4096, m.array("victim").stat().st_size - 5000)
        same(m.load("good"), GOOD)
        assert m.process.poll() is None
        assert (m.control() / "version").read_text()


def test_a_direct_read_of_a_file_that_shrank(mount, tmp_path):
    store = make(tmp_path, BIG)
    with mount(store) as m:
        fd = os.open(m.array("victim"), os.O_RDONLY | os.O_DIRECT)
        try:
            import mmap
            buf = mmap.mmap(-1, 1 << 20)
            os.truncate(store / "data_victim.npkd", 0)
            expect_error(errno.EIO, os.preadv, fd, [buf], 4096)
        finally:
            os.close(fd)
        same(m.load("good"), GOOD)


def test_views_batches_and_export_of_a_file_that_shrank(mount, tmp_path):
    """Every way to the same rows ends in an error, none in the death of the daemon."""
    store = make(tmp_path, Spec(BIG, deleted=list(range(1, len(BIG), 2))))
    with mount(store) as m:
        ways = [m.view("victim", "::-1"), m.control("victim") / "batches" / "1000000" / "0.npy",
                m.control() / "export" / "store.safetensors", m.control("victim") / "data.csv"]
        handles = [open(p, "rb", buffering=0) for p in ways]
        for h in handles:
            h.read(1)
        os.truncate(store / "data_victim.npkd", 0)
        for path, h in zip(ways, handles):
            def read_all(h=h):
                while h.read(1 << 20):
                    pass
            expect_error(errno.EIO, read_all)
            h.close()
        same(m.load("good"), GOOD)
        assert m.process.poll() is None


@pytest.mark.parametrize("name", [b"a\nb", b"\x1b[31mred", b"\xff\xfe", b"a\rb"])
def test_names_in_messages_cannot_forge_lines(name, mount, tmp_path):
    """A store from elsewhere names its arrays as it likes; the log and the terminal get one harmless line a message."""
    store, _ = write_store(tmp_path / "s.npk", {"good": GOOD, name: Spec(VICTIM, data_file=b"../" + name)})
    with mount(store) as m:
        for path in m.path.iterdir():
            if path.name != "good.npy":
                expect_error(errno.EUCLEAN, os.open, path, os.O_RDONLY)
        for text in ((m.control() / "log").read_bytes(), m.log.read_bytes()):
            assert b"\x1b" not in text and b"\r" not in text and text.decode("utf-8"), text
            assert all(b":" in line for line in text.splitlines()), text
        same(m.load("good"), GOOD)


def test_a_reader_that_dies_while_it_reads(mount, tmp_path):
    """kill -9 of clients in the middle of reads leaves nothing behind that keeps the mount from going."""
    store = make(tmp_path, Spec(np.arange(4_000_000, dtype="i8"), deleted=[5]))
    with mount(store) as m:
        for i in range(10):
            reader = subprocess.Popen(["cat", str(m.array("victim")), str(m.array("victim"))], stdout=subprocess.PIPE)
            reader.stdout.read(1000 * (i + 1))
            reader.kill()
            reader.wait()
            reader.stdout.close()
        wait_for("the daemon answers", lambda: (m.control() / "version").read_text())
        same(m.load("good"), GOOD)
