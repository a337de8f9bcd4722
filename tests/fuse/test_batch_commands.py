""".numpack/ctl: every verb, several arrays in one command, begin ... commit, and what stays as it was after an error."""

import errno
import io
import json
import os
import subprocess

import numpy as np

import harness
from harness import expect_error, same, saved

A = np.arange(300, dtype="f4").reshape(100, 3)
B = np.arange(60, dtype="i8").reshape(20, 3)
STORED = {"x": A, "y": B}


def ask(m, text):
    return harness.ask(m.control() / "ctl", text)


def ok(m, text, verb=None):
    code, reply = ask(m, text)
    assert code == 0 and reply.startswith(b"OK " + (verb or text.split()[0]).encode()), (code, reply)
    return reply.decode()


def payload(line, *parts):
    return line.encode() + b"\n" + b"".join(parts)


def announced(verb, *streams, kind="npy"):
    return payload(verb + "".join(f" {kind}={len(s)}" for s in streams), *streams)


def test_save_brings_an_array(rw):
    for array in (A[:7], B.astype(">i8"), np.asfortranarray(A), np.zeros((0, 2), "u1"), np.arange(5.0)):
        code, reply = ask(rw, announced("save z", saved(array)))
        assert code == 0 and reply.startswith(b"OK save rows=%d generation=" % len(array)), (code, reply)
        got = rw.load("z")
        assert got.shape == array.shape and (got == array).all() and got.dtype == array.dtype.newbyteorder("=")
    big = np.arange(3 << 18, dtype="f8").reshape(-1, 8)         # 6 MiB: the kernel cuts the write into pieces
    assert ask(rw, announced("save z", saved(big)))[0] == 0
    same(rw.load("z"), big)
    assert ask(rw, announced("save z", saved(A) + b"x"))[0] == errno.EINVAL
    assert ask(rw, announced("save z", saved(A)[:-1]))[0] == errno.EINVAL
    assert ask(rw, announced("save z", A.tobytes(), kind="raw"))[0] == errno.EINVAL
    assert ask(rw, "save z\n")[0] == errno.EINVAL and ask(rw, "save z npy=99999999999\n")[0] == errno.E2BIG
    same(rw.load("z"), big)


def test_several_arrays_change_together_or_not_at_all(rw):
    ask(rw, announced("append x y", saved(A[:2]), saved(B[:3])))
    same(rw.load("x"), np.vstack([A, A[:2]]))
    same(rw.load("y"), np.vstack([B, B[:3]]))
    assert ask(rw, payload(f"append x y raw={24} raw={48}", A[:2].tobytes(), B[:2].tobytes()))[0] == 0
    assert len(rw.load("x")) == 104 and len(rw.load("y")) == 25
    for bad, code in ((announced("append x y", saved(A[:2]), saved(A[:2])), errno.EINVAL), (announced("append x none", saved(A[:2]), saved(B[:2])), errno.ENOENT),
                      (announced("append x y", saved(A[:2])), errno.EINVAL), (payload("append x y raw=24 raw=25", b"0" * 49), errno.EINVAL)):
        assert ask(rw, bad)[0] == code
    assert len(rw.load("x")) == 104 and len(rw.load("y")) == 25
    ok(rw, "drop x y rows=0:5 10\n")
    assert len(rw.load("x")) == 98 and len(rw.load("y")) == 19
    for bad, code in (("drop x y rows=50\n", errno.ERANGE), ("drop y none rows=0\n", errno.ENOENT), ("drop x y rows=0:z\n", errno.EINVAL),
                      ("drop x\n", errno.EINVAL), ("drop x rows=all\n", errno.EINVAL)):
        assert ask(rw, bad)[0] == code, bad
    assert len(rw.load("x")) == 98 and len(rw.load("y")) == 19
    assert ask(rw, announced("replace x y rows=0:2,-1 atomic", saved(np.full((3, 3), -1, "f4")), saved(np.full((3, 3), -2, "i8"))))[0] == 0
    want_x, want_y = np.delete(np.vstack([A, A[:2], A[:2]]), [0, 1, 2, 3, 4, 10], 0), np.delete(np.vstack([B, B[:3], B[:2]]), [0, 1, 2, 3, 4, 10], 0)
    want_x[[0, 1, -1]], want_y[[0, 1, -1]] = -1, -2
    same(rw.load("x"), want_x)
    same(rw.load("y"), want_y)
    assert ask(rw, announced("replace x y rows=90", saved(A[:1]), saved(B[:1])))[0] == errno.ERANGE
    assert ask(rw, announced("replace x y rows=1", saved(A[:2]), saved(B[:2])))[0] == errno.EINVAL
    same(rw.load("x"), want_x)
    ok(rw, "compact x y\n")
    assert (rw.control("x") / "deleted").read_text() == (rw.control("y") / "deleted").read_text() == "0\n"
    ok(rw, "drop x rows=0\n")
    ok(rw, "compact all\n")
    same(rw.load("x"), want_x[1:])


def test_asking(rw):
    assert ask(rw, "has x\n") == (0, b"1\n") and ask(rw, "has z\n") == (0, b"0\n") and ask(rw, "has z fmt=json\n") == (0, b"false\n")
    assert ask(rw, "get shape x\n") == (0, b"100 3\n") and ask(rw, "get dtype y\n") == (0, b"<i8\n")
    assert json.loads(ask(rw, "get info x\n")[1])["shape"] == [100, 3]
    assert ask(rw, "get members\n") == (0, b"x\ny\n")
    assert set(json.loads(ask(rw, "get metadata\n")[1])["arrays"]) == {"x", "y"}
    assert "arrays" in json.loads(ask(rw, "get stats\n")[1])
    assert int(ask(rw, "get mtime x\n")[1]) == int((rw.control("x") / "mtime").read_text())
    for bad in ("get\n", "get shape\n", "get members x\n", "get color x\n"):
        assert ask(rw, bad)[0] == errno.EINVAL
    assert ask(rw, "get shape none\n")[0] == errno.ENOENT
    same(np.load(io.BytesIO(ask(rw, "getitem x sel=1:4;0,2\n")[1])), A[1:4][:, [0, 2]])
    assert ask(rw, "getitem y sel=0 fmt=text\n") == (0, b"0,1,2\n")
    for bad, code in (("getitem x sel=100\n", errno.ERANGE), ("getitem none sel=0\n", errno.ENOENT), ("getitem x sel=q\n", errno.EINVAL), ("getitem x\n", errno.EINVAL)):
        assert ask(rw, bad)[0] == code


def test_stream_is_one_npy_a_block(rw):
    same(np.load(io.BytesIO(ask(rw, "stream x\n")[1])), A)
    for n in (1, 7, 33, 100, 1000):
        f = io.BytesIO(ask(rw, f"stream x rows={n}\n")[1])
        blocks = [np.load(f) for _ in range(-(-100 // n))]
        assert f.read() == b"" and all(len(b) == n for b in blocks[:-1])
        same(np.concatenate(blocks), A)
    fd = os.open(rw.control() / "ctl", os.O_RDWR)
    end = os.write(fd, b"stream x rows=9\n")
    os.lseek(fd, end, os.SEEK_SET)
    got = b"".join(iter(lambda: os.read(fd, 77), b""))
    os.close(fd)
    assert got == ask(rw, "stream x rows=9\n")[1]
    assert ask(rw, "stream x rows=0\n")[0] == errno.EINVAL and ask(rw, "stream x rows=1:2\n")[0] == errno.EINVAL


def test_answers_as_json(rw):
    reply = json.loads(ask(rw, "drop x rows=0:3 fmt=json\n")[1])
    assert reply["status"] == "OK" and reply["verb"] == "drop" and reply["rows"] == 3 and reply["generation"] > 0
    code, reply = ask(rw, "drop x rows=5000 fmt=json\n")
    reply = json.loads(reply)
    assert code == errno.ERANGE and reply["status"] == "ERR" and reply["errno"] == "ERANGE" and "5000" in reply["message"]
    assert ask(rw, "drop x rows=0 fmt=npy\n")[0] == errno.EINVAL


def test_begin_and_commit_are_one_change(rw):
    lines = b"begin\ndrop x rows=0:10\n" + announced("append y", saved(B[:1])) + b"rename x z\nclone y w\n" + announced("save n", saved(A)) + b"commit\n"
    assert ask(rw, lines)[0] == 0
    assert sorted(os.listdir(rw.path)) == ["n.npy", "w.npy", "y.npy", "z.npy"]
    same(rw.load("z"), A[10:])
    same(rw.load("y"), np.vstack([B, B[:1]]))
    same(rw.load("w"), np.vstack([B, B[:1]]))
    same(rw.load("n"), A)


def test_a_line_that_fails_undoes_its_block(rw):
    fd = os.open(rw.control() / "ctl", os.O_RDWR)
    text = b"drop y rows=0\nbegin\ndrop x rows=0:10\nclone x y\ncommit\n"
    assert os.write(fd, text) == len(b"drop y rows=0\n")
    expect_error(errno.EEXIST, os.write, fd, text[len(b"drop y rows=0\n"):])
    assert os.pread(fd, 1000, 0).startswith(b"ERR EEXIST")
    expect_error(errno.EEXIST, os.close, fd)
    same(rw.load("x"), A)
    same(rw.load("y"), B[1:])
    assert ask(rw, "begin\ndrop x rows=0\ndrop x rows=q\ncommit\n")[0] == errno.EINVAL
    assert ask(rw, "begin\ndrop x rows=0\nabort\n")[0] == 0
    for bad in ("commit\n", "abort\n", "begin\nbegin\ncommit\n", "begin\nsync\ncommit\n"):
        assert ask(rw, bad)[0] == errno.EINVAL, bad
    same(rw.load("x"), A)


def test_a_block_may_come_in_pieces_and_without_its_commit_nothing_happens(rw):
    fd = os.open(rw.control() / "ctl", os.O_RDWR)
    for piece in (b"begin\n", b"drop x rows=0:50\n", b"drop y ", b"rows=0\n"):
        os.write(fd, piece)
        same(rw.load("x"), A)
    os.write(fd, b"commit\n")
    same(rw.load("x"), A[50:])
    same(rw.load("y"), B[1:])
    os.write(fd, b"begin\ndrop x rows=0\n")
    expect_error(errno.EINVAL, os.close, fd)
    same(rw.load("x"), A[50:])
    assert "commit" in rw.last_errors()[-1]["message"]
    big = np.arange(1 << 18, dtype="f8")
    assert ask(rw, b"begin\n" + announced("save n", saved(big)) + announced("save m", saved(big)) + b"commit\n")[0] == 0
    same(rw.load("n"), big)
    same(rw.load("m"), big)


def test_words(rw):
    ok(rw, 'clone x "two words"\n')
    same(rw.load("two words"), A)
    ok(rw, 'drop "two words" rows=0:99\n')
    assert ask(rw, 'clone x "open\n')[0] == errno.EINVAL
    assert b"usage" in ask(rw, "clone x\n")[1] and ask(rw, "clone x y z\n")[0] == errno.EINVAL
    assert b"ctl knows" in ask(rw, "frobnicate\n")[1]
    assert ask(rw, "drop x rows=0 please\n")[0] == errno.EINVAL and ask(rw, "compact x all force\n")[0] == errno.ENOENT
    ok(rw, "sync\n")
    ok(rw, "reload\n")
    assert ask(rw, "reset confirm=wrong\n")[0] == errno.EINVAL and ask(rw, "reset\n")[0] == errno.EINVAL
    ok(rw, "reset confirm=s.npk\n")
    assert os.listdir(rw.path) == []


def test_a_read_only_mount_answers_questions(mount, tmp_path):
    store = tmp_path / "s.npk"
    with mount(store, "create", ro=False) as m:
        np.save(m.array("x"), A)
    with mount(store) as m:
        assert ask(m, "get shape x\n") == (0, b"100 3\n") and ask(m, "has x\n") == (0, b"1\n")
        same(np.load(io.BytesIO(ask(m, "getitem x sel=5\n")[1])), A[5:6])
        ok(m, "reload\n")
        for text in ("drop x rows=0\n", "clone x y\n", "sync\n", "reset confirm=s.npk\n", "begin\ncommit\n", "compact all\n"):
            assert ask(m, text)[0] == errno.EROFS, text


def test_bash_talks_to_ctl(rw):
    script = f"exec 3<>{rw.control()}/ctl; echo 'begin' >&3; echo 'drop x rows=0:40' >&3; echo commit >&3; read -r a b <&3; echo $a $b; exec 3>&-"
    out = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert out.stdout.startswith("OK commit"), out
    same(rw.load("x"), A[40:])
