"""More than one process: forks, two writers, a mount on the same store, death."""

import os
import signal
import traceback

import numpy as np
import pytest

from harness import same
from numpackfs import NumPack, ReadOnlyError, StoreBusyError

HOLDER = """
import sys, numpy as np
from numpackfs import NumPack
with NumPack(sys.argv[1]) as n:
    n.append({"x": np.full((1, 2), 9.0)})
    print("ready", flush=True)
    sys.stdin.readline()
"""


def in_child(work):
    """Runs work() in a forked child; what it raises is told here."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os.write(w, b"")
            os._exit(0)
        except BaseException:
            os.write(w, traceback.format_exc().encode())
            os._exit(1)
    os.close(w)
    with os.fdopen(r, "rb") as f:
        said = f.read().decode()
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, said


def test_another_process_reads_while_one_writes_and_waits_its_turn(tmp_path, python):
    path = tmp_path / "s.npk"
    with NumPack(path) as n:
        n.save({"x": np.zeros((3, 2))})
    holder = python(HOLDER, path, wait=False)
    assert holder.stdout.readline() == "ready\n"
    with NumPack(path, lock_timeout=0.1) as n:
        same(n.load("x")[:3], np.zeros((3, 2)))
        assert n.get_shape("x") == (4, 2)      # what the other one has not synced yet is there
        for call in (lambda: n.save({"y": np.ones(1)}), lambda: n.append({"x": np.ones((1, 2))}), lambda: n.drop("x", 0),
                     lambda: n.replace({"x": np.ones((1, 2))}, [0]), lambda: n.drop("x"), lambda: n.reset(), lambda: n.clone("x", "y"),
                     lambda: n.update("x"), lambda: n.writable_batch_mode().load("x"),
                     lambda: NumPack(path, drop_if_exists=True).open()):
            with pytest.raises(StoreBusyError, match=rf"is being written by pid {holder.pid} on") as e:
                call()
            assert isinstance(e.value, RuntimeError)
        holder.communicate("go\n", timeout=60)
        assert holder.returncode == 0
        n.append({"x": np.ones((1, 2))})
        same(n.load("x")[3:], np.array([[9.0, 9], [1, 1]]))


SAVER = """
import sys, numpy as np
from numpackfs import NumPack
with NumPack(sys.argv[1]) as n:
    n.save({"x": np.arange(40.0).reshape(4, 10), "y": np.zeros(7)})
    n.drop("x", [0])
    n.drop("z")
"""


def test_the_first_change_looks_at_what_others_wrote_before_it(tmp_path, python):
    """What this process knows of the arrays is of the time before: rows that fitted then must not be written now."""
    path, now = tmp_path / "s.npk", np.arange(10, 40.0).reshape(3, 10)
    with NumPack(path) as n:
        n.save({"x": np.zeros((9, 2)), "y": np.ones(3), "z": np.ones(3)})
    changes = [lambda n: n.append({"x": np.ones((1, 2))}), lambda n: n.replace({"x": np.ones((1, 2))}, [0]),
               lambda n: n.append({"x": np.ones((1, 2)), "y": np.ones(1)}), lambda n: n.drop("x", [8]), lambda n: n.drop("z", [0])]
    for change, error in zip(changes, [ValueError, ValueError, ValueError, IndexError, None]):
        with NumPack(path) as n:
            n.save({"x": np.zeros((9, 2)), "y": np.ones(3), "z": np.ones(3)})
        with NumPack(path) as n:
            assert n.get_shape("x") == (9, 2) and n.get_shape("y") == (3,) and n.get_shape("z") == (3,)
            python(SAVER, path)
            if error:
                with pytest.raises(error):
                    change(n)
            else:
                change(n)
            assert n.get_shape("x") == (3, 10) and n.get_shape("y") == (7,) and not n.has_array("z")
            n.append({"x": np.ones((1, 10))})
            same(n.load("x"), np.concatenate([now, np.ones((1, 10))]))


def test_a_mounted_store_is_read_and_a_write_names_the_mountpoint(tmp_path, mount):
    path = tmp_path / "s.npk"
    with NumPack(path) as n:
        n.save({"x": np.arange(6.0).reshape(3, 2)})
    m = mount.start(path, ro=False)
    np.save(os.path.join(m.path, "y.npy"), np.arange(5))
    with NumPack(path, lock_timeout=0.1) as n:
        same(n.load("x"), np.arange(6.0).reshape(3, 2))
        same(n.load("y"), np.arange(5))
        with pytest.raises(StoreBusyError) as e:
            n.append({"x": np.ones((1, 2))})
        assert f"mounted at {m.path}" in str(e.value) and f"write through that mount instead: {m.path}/" in str(e.value)
        np.save(os.path.join(m.path, "z.npy"), np.arange(7))
        n.refresh()
        same(n.load("z"), np.arange(7))
    with pytest.raises(RuntimeError, match="is a mounted store"):
        NumPack(m.path).open()
    mount.stop(m)
    with NumPack(path) as n:
        n.append({"x": np.ones((1, 2))})
        assert n.get_shape("x") == (4, 2) and n.get_member_list() == ["x", "y", "z"]


def test_a_forked_child_reads_and_does_not_write(tmp_path):
    path = tmp_path / "s.npk"
    n = NumPack(path)
    with n:
        n.save({"x": np.arange(1000.0)})
        lazy = n.load("x", lazy=True)

        def child():
            same(n.load("x"), np.arange(1000.0))
            same(lazy[[5, 7]], np.array([5.0, 7]))
            with pytest.raises(ReadOnlyError, match="inherited by fork"):
                n.append({"x": np.ones(1)})
            with pytest.raises(StoreBusyError):
                with NumPack(path, lock_timeout=0) as other:
                    other.append({"x": np.ones(1)})
            n.close()

        in_child(child)
        n.append({"x": np.ones(1)})      # the child's close was its own
        assert n.get_shape("x") == (1001,)


def test_a_child_does_not_keep_the_writers_lock(tmp_path):
    """DataLoader workers outlive a store that their parent closes."""
    path = tmp_path / "s.npk"
    n = NumPack(path)
    n.open()
    n.save({"x": np.arange(4.0)})
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(w)
        os.read(r, 1)
        os._exit(0)
    os.close(r)
    try:
        n.close()
        with NumPack(path, lock_timeout=0) as again:
            again.append({"x": np.ones(1)})
    finally:
        os.close(w)
        os.waitpid(pid, 0)


def test_what_was_acknowledged_survives_sigkill(tmp_path, python):
    path = tmp_path / "s.npk"
    p = python("""
import os, signal, sys, numpy as np
from numpackfs import NumPack
n = NumPack(sys.argv[1]); n.open()
n.save({"x": np.arange(20.0), "y": np.zeros((5, 2))})
n.drop("x", [0, 1]); n.append({"x": np.ones(3)}); n.replace({"x": np.array([-1.0])}, [0])
with n.writable_batch_mode() as w:
    w.load("y")[2] = 7
os.kill(os.getpid(), signal.SIGKILL)
""", path, wait=False)
    p.communicate(timeout=60)
    assert p.returncode == -signal.SIGKILL
    want = np.concatenate([np.arange(2.0, 20), np.ones(3)])
    want[0] = -1
    with NumPack(path) as n:
        same(n.load("x"), want)
        y = np.zeros((5, 2))
        y[2] = 7
        same(n.load("y"), y)


def test_appends_of_many_processes_are_all_there(tmp_path, python):
    path = tmp_path / "s.npk"
    with NumPack(path) as n:
        n.save({"x": np.zeros((0, 2), "i8")})
    source = """
import sys, numpy as np
from numpackfs import NumPack
for i in range(5):
    with NumPack(sys.argv[1], lock_timeout=90) as n:
        n.append({"x": np.full((3, 2), int(sys.argv[2]) * 100 + i)})
"""
    workers = [python(source, path, k, wait=False) for k in range(4)]
    for p in workers:
        _, said = p.communicate(timeout=110)
        assert p.returncode == 0, said
    with NumPack(path) as n:
        got = sorted(n.load("x")[:, 0].tolist())
    assert got == sorted([k * 100 + i for k in range(4) for i in range(5)] * 3)


def test_a_damaged_store_is_never_an_empty_one(tmp_path):
    path = tmp_path / "s.npk"
    with NumPack(path) as n:
        n.save({"x": np.arange(5.0)})
    (path / "metadata.npkm").write_bytes(b"nonsense")
    with pytest.raises(RuntimeError, match="metadata.npkm"):
        NumPack(path).open()
    assert (path / "metadata.npkm").read_bytes() == b"nonsense"
