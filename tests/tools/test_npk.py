"""npk: what each subcommand prints, writes and returns, and that its help, man page and completions agree."""

import ctypes
import io
import json
import os
import pty
import re
import resource
import shutil
import signal
import stat
import struct
import subprocess

import numpy as np
import pytest

from harness import (ARRAYS, BAD, BUILD, GOLDEN, INDEX, PATIENCE, ROOT, SANITIZED, copy_golden, program, require_fuse, same, saved, untouched,
                     wait_for)
from npkrun import FAILED, OK, USAGE, good, refused, run
from npkwrite import Spec, write_store

STORES = sorted({a["store"] for a in ARRAYS}) + INDEX["empty_stores"]
BAD_STORES = [b for b in BAD if b["kind"] == "store"]


def listed_commands():
    """What npk says that it has: new commands are tested without being named here."""
    text = subprocess.run([str(program("npk")), "help"], capture_output=True, text=True, timeout=PATIENCE).stdout
    return re.findall(r"^  ([a-z]+)  +\w", text, re.MULTILINE)


COMMANDS = listed_commands()


def of_store(name):
    return [a for a in ARRAYS if a["store"] == name]


def expected(a):
    return GOLDEN / a["expected_npy"]


def loaded(data):
    return np.load(io.BytesIO(data))


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """golden("dtypes.npk"): a copy of that store that all tests share and none may change."""
    base, stores = tmp_path_factory.mktemp("stores"), {}

    def get(name):
        if name not in stores:
            path = copy_golden(name, base)
            guard = untouched(path)
            guard.__enter__()
            stores[name] = (path, guard)
        return str(stores[name][0])

    yield get
    for _, guard in stores.values():
        guard.__exit__(None, None, None)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store of our own: rows with holes, a mask, numbers that are hard to print, and names that look like options."""
    rng = np.random.default_rng(5)
    # 1e308 becomes inf in float32, on purpose.
    hard = np.array([0, -0.0, 1, 0.1, 1 / 3, 5e-324, 1.7976931348623157e308, np.inf, -np.inf, np.nan, 123456789.125, 2 ** 53])
    with np.errstate(over="ignore"):
        hard_f4 = hard.astype("f4")
    arrays = {
        "x": Spec(rng.integers(-9, 9, (20, 4, 3)).astype("i4"), deleted=[0, 3, 19]),
        "keep": Spec(np.arange(17) % 3 == 0),
        "bits": Spec(np.array([1, 0, 2, 0], "u1")),
        "f8": Spec(np.concatenate([hard, rng.standard_normal(200)])),
        "f4": Spec(np.concatenate([hard_f4, rng.standard_normal(200).astype("f4")])),
        "f2": Spec(np.arange(65536, dtype="u2").view("f2")),
        "c16": Spec(np.array([1 + 2j, -1 - 0.1j, complex(np.inf, -0.0), 1 / 3 + 0j])),
        "c8": Spec(np.array([[1 + 2j, 0.1 - 3j]], "c8")),
        "b1": Spec(np.array([True, False, True])),
        "none": Spec(np.zeros((0, 3), "f4")),
        "thin": Spec(np.zeros((3, 0), "f4")),
        "segments": Spec(np.arange(100, dtype="u2"), segment_rows=7, deleted=[1, 50]),
        "-o": Spec(np.arange(3)),
    }
    path = tmp_path_factory.mktemp("made") / "made.npk"
    write_store(path, arrays)
    with untouched(path):
        yield str(path), {name: spec.logical() for name, spec in arrays.items()}


# --- ls and info ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", STORES)
def test_ls_names_one_a_line_in_byte_order(store, golden):
    names = sorted(a["array"].encode() for a in of_store(store))
    assert good("ls", golden(store)) == b"".join(n + b"\n" for n in names)
    assert [n.encode() for n in json.loads(good("ls", "--json", golden(store)))] == names


@pytest.mark.parametrize("store", STORES)
def test_ls_long_and_info_tell_what_the_index_says(store, golden):
    told = {a["name"]: a for a in json.loads(good("ls", "-l", "-j", golden(store)))}
    info = json.loads(good("info", "--json", golden(store)))
    want = {a["array"]: a for a in of_store(store)}
    assert told.keys() == want.keys() and [a["name"] for a in info["arrays"]] == list(told)
    assert info["count"] == len(want) and not info["read_only"] and info["metadata"]["total_arrays"] == len(want)
    for name, a in want.items():
        array = np.load(expected(a), mmap_mode="r")
        assert (told[name]["dtype"], tuple(told[name]["shape"])) == (array.dtype.name, array.shape)
        assert (told[name]["physical_rows"], told[name]["deleted"]) == (a["physical_rows"], a["deleted"])
        assert (told[name]["size_bytes"], told[name]["state"]) == (array.nbytes, "ok")
        assert (told[name]["segments"] > 0) == a["segmented"]


def test_ls_long_as_text(golden):
    assert good("ls", "-l", golden("digits.npk")).decode().splitlines() == [
        "NAME    DTYPE    SHAPE     DELETED    SIZE",
        "images  uint8    1700x8x8       97  108800",
        "labels  int64    1700           97   13600",
        "pixels  float32  1700x64        97  435200",
    ]


def test_info_as_text(golden):
    text = good("info", golden("digits.npk"), "labels", "images").decode()
    assert text.index("array: labels") < text.index("array: images") and "pixels" not in text
    for line in ("  dtype: int64", "  shape: (1700,)", "  rows: 1700", "  deleted: 97", "  physical rows: 1797", "  bytes: 13600"):
        assert line in text.splitlines()
    assert re.search(r"^  modified: \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$", text, re.MULTILINE)


def test_info_of_a_missing_array_tells_of_the_others(golden):
    done = run("info", "--json", golden("digits.npk"), "nope", "labels")
    assert done.returncode == FAILED and b"nope" in done.stderr
    assert [a["name"] for a in json.loads(done.stdout)["arrays"]] == ["labels"]


def on_terminal(*args):
    """The exit status, and what appears on a terminal of 200 columns."""
    parent, child = pty.openpty()
    process = subprocess.Popen([str(program("npk")), *args], stdin=subprocess.DEVNULL, stdout=child, stderr=child)
    os.close(child)
    out = b""
    while True:
        try:
            got = os.read(parent, 65536)
        except OSError:    # EIO: the other end is closed
            got = b""
        if not got:
            break
        out += got
    os.close(parent)
    return process.wait(PATIENCE), out.replace(b"\r\n", b"\n")


def test_a_terminal_never_sees_control_characters(golden):
    store = golden("control_names.npk")
    for command in (["ls", store], ["ls", "-l", store], ["info", store], ["get", store, "a\x7f\x01", "--rows", "99"],
                    ["get", store, "no\x1b[2Jpe"]):
        _, out = on_terminal(*command)
        assert all(ch == 10 or 32 <= ch != 127 for ch in out) and "\u202e".encode() not in out, out
    assert on_terminal("ls", store)[1].decode().splitlines() == ["a\\x7F\\x01", "new\\x0Aline", "tab\\x09", "\\xE2\\x80\\xAEabc"]
    assert len({line.index(b"SIZE") for line in on_terminal("ls", "-l", store)[1].splitlines()[:1]}) == 1


def test_verify_and_info_keep_one_line_for_one_fact(golden):
    text = good("info", golden("control_names.npk")).decode()
    assert "array: new\\x0Aline\n" in text
    assert run("verify", golden("control_names.npk")).returncode == OK


# --- get --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("a", ARRAYS, ids=lambda a: f"{a['store']}-{a['expected_npy'].split('/')[1][:-4]}")
def test_get_writes_what_numpy_would(a, golden, tmp_path):
    out = tmp_path / "out.npy"
    assert good("get", golden(a["store"]), "-o", str(out), "--", a["array"]) == b""
    assert out.read_bytes() == expected(a).read_bytes()
    assert os.listdir(tmp_path) == ["out.npy"]


SELECTIONS = [
    ("--rows", "0", np.s_[[0]]),
    ("--rows", "-1", np.s_[[-1]]),
    ("--rows", "2:9", np.s_[2:9]),
    ("--rows", "::-1", np.s_[::-1]),
    ("-r", "1:100:4", np.s_[1:100:4]),
    ("-r", "5,3+3 0", np.s_[[5, 3, 3, 0]]),
    ("-r", "0:2,-2:,4", np.s_[[0, 1, 15, 16, 4]]),
    ("-r", "3:3", np.s_[3:3]),
    ("-r", "all", np.s_[:]),
    ("-r", "mask=keep", np.s_[::3]),
    ("--sel", "all;1;::2", np.s_[:, 1:2, ::2]),
    ("--sel", "0:3@-1", np.s_[0:3, -1:]),
    ("-s", ":;all@2", np.s_[:, :, 2:]),
    ("-s", "mask=keep;mask=bits", np.s_[::3, ::2]),
]


@pytest.mark.parametrize("option,sel,index", SELECTIONS, ids=[s[1] for s in SELECTIONS])
def test_selections_are_numpys(option, sel, index, made):
    path, arrays = made
    want = np.ascontiguousarray(arrays["x"][index])
    assert good("get", path, "x", option, sel) == saved(want)
    assert good("get", path, option, sel, "-o", "-", "x") == saved(want)
    text = good("cat", path, "x", option, sel).decode()
    assert text == "".join(",".join(map(str, row.ravel())) + "\n" for row in want)
    assert good("cat", path, "x", option, sel, "--format", "npy") == saved(want)


@pytest.mark.parametrize("sel", ["x", "1:2:0", "1.5", "0;1;2;3", "mask=f8", "mask=bits"])
def test_a_selection_that_makes_no_sense(sel, made):
    assert refused(FAILED, "get", made[0], "x", "--sel", sel)


@pytest.mark.parametrize("sel,why", [("17", "17 is out of range"), ("-18", "-18 is out of range"), ("mask=nope", "nope")])
def test_a_selection_that_does_not_fit(sel, why, made):
    assert why in refused(FAILED, "get", made[0], "x", "--rows", sel)


def test_a_name_like_an_option(made):
    same(loaded(good("get", made[0], "--", "-o")), made[1]["-o"])


# --- where get writes -------------------------------------------------------------------------------------------------


def test_the_output_has_the_usual_mode_or_keeps_its_own(made, tmp_path):
    out = tmp_path / "out.npy"
    good("get", made[0], "x", "-o", str(out), umask=0o027)
    assert stat.S_IMODE(out.stat().st_mode) == 0o640
    out.chmod(0o604)
    good("get", made[0], "keep", "-o", str(out))
    assert stat.S_IMODE(out.stat().st_mode) == 0o604
    same(np.load(out), made[1]["keep"])


def test_the_output_is_relative_to_the_current_directory_and_through_links(made, tmp_path):
    (tmp_path / "target.npy").write_bytes(b"old")
    (tmp_path / "link.npy").symlink_to("target.npy")
    good("get", made[0], "x", "-o", "link.npy", cwd=tmp_path)
    assert (tmp_path / "link.npy").is_symlink()
    same(np.load(tmp_path / "target.npy"), made[1]["x"])


def test_what_is_no_file_is_written_as_it_is(made, tmp_path):
    good("get", made[0], "x", "-o", "/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    os.mkfifo(tmp_path / "fifo")
    reader = subprocess.Popen(["cat", str(tmp_path / "fifo")], stdout=subprocess.PIPE)
    good("get", made[0], "x", "-o", str(tmp_path / "fifo"))
    same(loaded(reader.communicate(timeout=PATIENCE)[0]), made[1]["x"])
    assert os.listdir(tmp_path) == ["fifo"]


def test_an_output_that_cannot_be_is_named(made, tmp_path):
    assert str(tmp_path) in refused(FAILED, "get", made[0], "x", "-o", str(tmp_path))
    assert "no/dir.npy" in refused(FAILED, "get", made[0], "x", "-o", "no/dir.npy")


def test_a_terminal_is_refused(made):
    for command in (["get", made[0], "x"], ["cat", made[0], "x", "--batch", "5"]):
        status, out = on_terminal(*command)
        assert status == FAILED and b"terminal" in out and b"NUMPY" not in out
    assert on_terminal("cat", made[0], "keep", "--rows", "0:2") == (OK, b"1\n0\n")


def test_a_failure_leaves_the_old_output(made, tmp_path):
    out = tmp_path / "out.npy"
    out.write_bytes(b"old")

    def small_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))

    assert "File too large" in refused(FAILED, "get", made[0], "f8", "-o", str(out), preexec_fn=small_files)
    refused(FAILED, "get", made[0], "nope", "-o", str(out))
    refused(FAILED, "get", made[0], "x", "--rows", "99", "-o", str(out))
    assert out.read_bytes() == b"old" and os.listdir(tmp_path) == ["out.npy"]


@pytest.fixture
def large(tmp_path):
    """A store with 2 GiB of zeros that take no room on disk."""
    path = tmp_path / "large.npk"
    write_store(path, {"z": Spec(np.broadcast_to(np.float32(0), (1 << 19, 1 << 10)), write_data=False)})
    with open(path / "data_z.npkd", "wb") as f:
        f.truncate(1 << 31)
    return path


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_the_old_output(sig, large, tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    (target / "out.npy").write_bytes(b"old")
    process = subprocess.Popen([str(program("npk")), "get", str(large), "z", "-o", str(target / "out.npy")])
    wait_for("the temporary file is there", lambda: len(os.listdir(target)) == 2 or process.poll() is not None)
    process.send_signal(sig)
    assert process.wait(PATIENCE) == -sig
    assert os.listdir(target) == ["out.npy"] and (target / "out.npy").read_bytes() == b"old"


@pytest.mark.skipif(SANITIZED, reason="a sanitizer's shadow memory is more than the limit")
def test_memory_does_not_grow_with_the_array(large):
    def limit():
        resource.setrlimit(resource.RLIMIT_DATA, (16 << 20, 16 << 20))

    with open("/dev/null", "wb") as null:
        for command in (["get", str(large), "z", "--rows", "0:100000"], ["cat", str(large), "z", "--rows", "0:1000"]):
            done = subprocess.run([str(program("npk")), *command], stdout=null, preexec_fn=limit, timeout=PATIENCE)
            assert done.returncode == OK


def test_a_data_file_cut_short_while_it_is_read_is_an_error(large):
    process = subprocess.Popen([str(program("npk")), "get", str(large), "z"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(4 << 20)
    os.truncate(large / "data_z.npkd", 1 << 20)
    while process.stdout.read(1 << 20):
        pass
    assert process.wait(PATIENCE) == FAILED
    assert b"data_z.npkd" in process.stderr.read()


@pytest.mark.parametrize("command", [["ls", "S"], ["ls", "-l", "S"], ["info", "S"], ["info", "-j", "S"], ["get", "S", "x"],
                                     ["cat", "S", "x"], ["verify", "S"], ["help"], ["get", "--help"]], ids=" ".join)
def test_a_full_disk_is_an_error(command, made):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([str(program("npk")), *[made[0] if w == "S" else w for w in command]], stdout=full,
                              stderr=subprocess.PIPE, timeout=PATIENCE)
    assert done.returncode == FAILED and b"No space left" in done.stderr


# --- cat --------------------------------------------------------------------------------------------------------------


def shortest(value, digits):
    """NumPy's shortest digits in the form of C's %g: `digits` tell where exponents begin, unless the number has more."""
    if not np.isfinite(value):
        return str(value)
    mantissa, exponent = np.format_float_scientific(value, unique=True, trim="-", exp_digits=2).split("e")
    if -4 <= int(exponent) < max(digits, len(mantissa.lstrip("-").replace(".", ""))):
        return np.format_float_positional(value, unique=True, trim="-")
    return f"{mantissa}e{exponent}"


def as_text(value):
    dtype = value.dtype
    if dtype.kind == "b":
        return str(int(value))
    if dtype.kind in "iu":
        return str(value)
    if dtype.kind == "c":
        re_, im = as_text(value.real), as_text(value.imag)
        return re_ + ("" if im.startswith("-") else "+") + im + "j"
    if dtype == np.float64:
        return shortest(np.float64(value), 15)
    return shortest(np.float32(value), 6)


@pytest.mark.parametrize("name", ["f8", "f4", "f2", "c16", "c8", "b1", "keep", "x", "none", "thin", "segments"])
def test_cat_prints_numbers_that_read_back(name, made):
    path, arrays = made
    array = arrays[name]
    want = "".join(",".join(as_text(v) for v in row.reshape(-1)) + "\n" for row in array)
    got = good("cat", path, name).decode()
    assert got == want
    assert good("cat", path, name, "--format=text").decode() == got.replace(",", " ")


class Err(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int), ("msg", ctypes.c_char * 512)]


def csv_of_library(lib, store, name):
    s, a, g, c, err = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p(), Err()
    buffer, out = ctypes.create_string_buffer(1 << 16), b""
    raw = name.encode()
    assert lib.npk_store_open(ctypes.byref(s), store.encode(), 1, ctypes.byref(err)) == 0
    assert lib.npk_array_get_n(ctypes.byref(a), s, raw, ctypes.c_size_t(len(raw)), ctypes.byref(err)) == 0
    assert lib.npk_gen_get(ctypes.byref(g), a, ctypes.byref(err)) == 0
    assert lib.npk_csv_open(ctypes.byref(c), g, ctypes.byref(err)) == 0
    lib.npk_csv_read.restype = ctypes.c_ssize_t
    while True:
        n = lib.npk_csv_read(c, buffer, ctypes.c_size_t(len(buffer)), ctypes.byref(err))
        assert n >= 0, err.msg
        if n == 0:
            break
        out += buffer.raw[:n]
    lib.npk_csv_close(c)
    lib.npk_gen_put(g)
    lib.npk_array_put(a)
    lib.npk_store_close(s)
    return out


@pytest.mark.skipif(SANITIZED, reason="a sanitizer's runtime cannot be loaded into Python")
def test_cat_prints_what_the_library_and_the_mount_do(golden):
    lib = ctypes.CDLL(str(BUILD / "libnumpack.so"))
    for a in ARRAYS:
        store = golden(a["store"])
        assert good("cat", store, "--", a["array"]) == csv_of_library(lib, store, a["array"]), a["array"]


@pytest.mark.parametrize("batch", [1, 4, 17, 100])
def test_batches_are_consecutive_streams(batch, made):
    path, arrays = made
    stream, parts = io.BytesIO(good("cat", path, "x", "--batch", str(batch))), []
    while stream.tell() < len(stream.getvalue()):
        parts.append(np.load(stream))
    assert [len(p) for p in parts[:-1]] == [batch] * (len(parts) - 1)
    same(np.concatenate(parts), arrays["x"])


def test_batches_of_a_selection(made):
    path, arrays = made
    stream = io.BytesIO(good("cat", path, "x", "-s", "::2;0:2", "-b", "5", "-f", "npy"))
    same(np.concatenate([np.load(stream), np.load(stream)]), arrays["x"][::2, 0:2])
    assert stream.read() == b""


def test_no_rows_give_no_batches(made):
    assert good("cat", made[0], "none", "--batch", "3") == b""


def test_a_reader_that_stops_early_is_no_error_message(large):
    process = subprocess.Popen([str(program("npk")), "cat", str(large), "z"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b",".join([b"0"] * 1024) + b"\n"
    process.stdout.close()
    assert process.wait(PATIENCE) == -signal.SIGPIPE and process.stderr.read() == b""


# --- verify and damage ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", STORES)
def test_what_the_library_wrote_is_clean(store, golden):
    lines = good("verify", golden(store)).decode().splitlines()
    assert lines[-1].startswith("clean: damage 0,")
    assert all(line.startswith(("note: ", "warning: ")) for line in lines[:-1])
    assert good("verify", "-q", golden(store)) == b""
    told = json.loads(good("verify", "--json", golden(store)))
    assert told["checked"] and told["damage"] == 0 and len(told["findings"]) == len(lines) - 1


def damage_in(case):
    return case["open_fails"] or case["damaged"] or case["store_read_only"]


def shown(name):
    return name.replace("\0", "\\x00")


@pytest.mark.parametrize("case", BAD_STORES, ids=lambda c: c["path"])
def test_verify_tells_of_damage(case):
    path = str(GOLDEN / "bad" / case["path"])
    status = 1 if damage_in(case) else OK
    with untouched(path):
        done, quiet, as_json = run("verify", path), run("verify", "--quiet", path), run("verify", "--json", path)
    assert (done.returncode, quiet.returncode, as_json.returncode) == (status, status, status), done
    assert done.stderr == quiet.stderr == quiet.stdout == as_json.stderr == b""
    lines, told = done.stdout.decode().splitlines(), json.loads(as_json.stdout)
    damage = [line for line in lines if line.startswith("damage: ")]
    assert told["damage"] == len(damage) == len([f for f in told["findings"] if f["severity"] == "damage"])
    assert bool(damage) == bool(status) and lines[-1].startswith("damaged: " if status else "clean: ")
    assert all(re.search(r"(\.npk[mdb]|\.npkseg)\b", line) for line in damage)
    for name in case["damaged"]:
        assert any(line.startswith(f"damage: {shown(name).split(chr(92))[0]}") for line in damage)


@pytest.mark.parametrize("case", BAD_STORES, ids=lambda c: c["path"])
def test_damage_stays_where_it_is(case):
    """Sound arrays are read, damaged ones refused with the reason, and nothing on disk changes."""
    path = str(GOLDEN / "bad" / case["path"])
    with untouched(path):
        if case["open_fails"]:
            for command in (["ls", path], ["info", path], ["get", path, "good"], ["cat", path, "good"]):
                assert "metadata.npkm" in refused(FAILED, *command)
            return
        for name in case["usable"]:
            assert good("get", path, name) == (GOLDEN / "bad" / case["values"][name]).read_bytes()
        for name in case["damaged"]:
            if "\0" not in name:    # no such word fits on a command line
                assert re.search(r"\.npk(m|d|b|seg)\b", refused(FAILED, "get", path, name))
                assert refused(FAILED, "cat", path, name)
        names, long, info = run("ls", path), run("ls", "-l", path), run("info", "--json", path)
    listed = sorted(n.encode() for n in case["usable"] + case["damaged"])
    assert names.stdout == b"".join(n + b"\n" for n in listed)
    assert names.returncode == (FAILED if case["store_read_only"] else OK)
    assert long.returncode == info.returncode == (FAILED if case["damaged"] or case["store_read_only"] else OK)
    assert long.stdout.count(b"  damaged: ") == len(case["damaged"])
    assert bool(names.stderr) == bool(case["store_read_only"])
    told = json.loads(info.stdout)
    assert {a["name"] for a in told["arrays"] if a["state"] == "damaged"} == set(case["damaged"])
    assert all(a["reason"] for a in told["arrays"] if a["state"] == "damaged")
    assert told["read_only"] == case["store_read_only"]


@pytest.mark.parametrize("dims", [(1 << 63, 0), ((1 << 64) - 1, 0), (2, 0, 1 << 63)], ids=str)
def test_rows_that_no_index_reaches_are_damage(dims, tmp_path):
    """Such a shape has no bytes and overflows all the same: a row's number is an int64_t."""
    path = tmp_path / "huge.npk"
    write_store(path, {"h": Spec(np.zeros((1,) * len(dims), "i4")), "good": Spec(np.arange(3))})
    meta = (path / "metadata.npkm").read_bytes()
    ones, huge = struct.pack(f"<{len(dims)}Q", *[1] * len(dims)), struct.pack(f"<{len(dims)}Q", *dims)
    assert meta.count(ones) == 1
    (path / "metadata.npkm").write_bytes(meta.replace(ones, huge))
    assert "overflows" in refused(FAILED, "get", str(path), "h", "--rows", "::-1")
    assert run("verify", "-q", str(path)).returncode == 1
    same(loaded(good("get", str(path), "good")), np.arange(3))


def test_an_array_behind_the_cut_is_looked_for_in_vain():
    path = str(GOLDEN / "bad" / "meta_entry_cut")
    assert "the entry is cut short" in refused(FAILED, "get", path, "victim")


def test_what_is_no_store(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    for path in (str(tmp_path / "nope"), str(tmp_path / "file")):
        assert path in refused(FAILED, "ls", path)
        assert path in refused(FAILED, "get", path, "x")
        assert path in refused(FAILED, "verify", path)


# --- usage ------------------------------------------------------------------------------------------------------------


WRONG = [
    (["ls"], "STORE"), (["ls", "a", "b"], "b"), (["get", "S"], "STORE ARRAY"), (["get", "S", "x", "y"], "y"),
    (["get", "S", "x", "--nope"], "--nope"), (["get", "S", "x", "-z"], "-z"), (["get", "S", "x", "-o"], "-o"),
    (["ls", "--json=1", "S"], "--json=1"), (["get", "S", "x", "--rows", "0;1"], "--sel"),
    (["get", "S", "x", "--rows", "0", "--sel", "0"], "both"), (["cat", "S", "x", "--format", "xml"], "xml"),
    (["cat", "S", "x", "--batch", "0"], "--batch"), (["cat", "S", "x", "--batch", "1x"], "1x"),
    (["cat", "S", "x", "--batch", "-1"], "-1"), (["cat", "S", "x", "-b", "99999999999999999999"], "9999"),
    (["cat", "S", "x", "--batch", "2", "--format", "csv"], "csv"),
]


@pytest.mark.parametrize("args,why", WRONG, ids=[" ".join(w[0]) for w in WRONG])
def test_wrong_usage(args, why, made):
    assert why in refused(USAGE, *[made[0] if a == "S" else a for a in args])


def test_verify_keeps_one_for_damage(made):
    assert refused(2, "verify")
    assert refused(2, "verify", "--nope", made[0])


def test_options_follow_operands(made):
    assert good("get", "-r", "0", made[0], "x") == good("get", made[0], "x", "-r0") == good("get", made[0], "x", "--rows=0")


def test_without_a_command():
    done = run()
    assert done.returncode == USAGE and done.stdout == b"" and b"Usage: npk" in done.stderr
    done = run("frobnicate", "x")
    assert done.returncode == USAGE and done.stderr == b"npk: there is no command 'frobnicate'; npk help lists them\n"
    assert refused(USAGE, "help", "frobnicate")


def test_version():
    version = re.search(r'#define NPK_VERSION "(.*)"', (ROOT / "engine" / "numpack.h").read_text())[1]
    assert good("--version") == good("-V") == f"npk {version}\n".encode()


# --- help, the man page and completions say the same ------------------------------------------------------------------


def help_of(command):
    return good(command, "--help").decode()


def options_of(command):
    """(letter, name) of each option in the help."""
    return re.findall(r"^  -(\w), --([a-z-]+)", help_of(command), re.MULTILINE)


def examples_of(text):
    lines = text[text.index("Examples:"):].splitlines()[1:]
    return [line.strip() for line in lines if line.strip()]


def test_help_lists_each_command():
    assert set(COMMANDS) == {
        "create", "ls", "info", "get", "cat", "save", "append", "replace", "drop", "compact", "clone", "rename", "reset", "search", "score", "merge",
        "pack", "unpack", "pkginfo", "import", "export", "verify", "repair", "batch", "stats", "top", "umount", "doctor", "bench", "help"}
    table = (ROOT / "tools" / "tool.h").read_text()    # one that is declared and not listed would have no help and no test
    assert set(re.findall(r"^extern const struct npkt_cmd npkt_(\w+);", table, re.MULTILINE)) | {"help"} == set(COMMANDS)
    assert good("help") == good("--help") == good("-h")
    for command in COMMANDS:
        assert good("help", command).decode() == help_of(command) == good(command, "-h").decode()
        assert help_of(command).startswith(f"Usage: npk {command} ")
        assert max(len(line) for line in help_of(command).splitlines()) <= 120
        assert ("h", "help") in options_of(command)


def man_page():
    """The source without font changes: \\fB, .BR and the like, and with plain dashes."""
    text = re.sub(r"\\f[BRIP]", "", (ROOT / "tools" / "npk.1").read_text()).replace("\\-", "-")
    return re.sub(r"^\.[BIR]{1,2} ", "", text, flags=re.MULTILINE).replace('"', "")


def section(text, command):
    found = re.findall(rf"^\.SS npk {command}\n(.*?)(?=^\.S[SH] )", text, re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"npk.1 has {len(found)} sections 'npk {command}'"
    return found[0]


def test_the_man_page_has_each_command_and_no_other():
    text = man_page()
    assert sorted(re.findall(r"^\.SS npk (\w+)$", text, re.MULTILINE)) == sorted(COMMANDS)
    synopsis = re.search(r"^\.SH SYNOPSIS\n(.*?)^\.SH ", text, re.MULTILINE | re.DOTALL)[1]
    own = set(re.findall(r"^npk (\w+)", "".join(section(text, c) for c in COMMANDS), re.MULTILINE))    # search, score, merge
    assert set(re.findall(r"^npk (\w+)$", synopsis, re.MULTILINE)) | own >= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_man_page_has_each_option(command):
    part = section(man_page(), command)
    assert len(part.split()) > 3
    in_man = set(re.findall(r"^-(\w) ,  --([a-z-]+)", part, re.MULTILINE))
    assert in_man == set(options_of(command)) - {("h", "help")}


@pytest.mark.parametrize("command", COMMANDS)
def test_fish_offers_each_option(command, tmp_path):
    if not shutil.which("fish"):
        pytest.skip("fish is not installed")
    env = {**os.environ, "HOME": str(tmp_path), "PATH": f"{BUILD}:{os.environ['PATH']}"}
    script = f"source {ROOT}/contrib/completions/npk.fish; complete -C'npk {command} --'; complete -C'npk '"
    done = subprocess.run(["fish", "-N", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=PATIENCE)
    offered = {line.split("\t")[0] for line in done.stdout.splitlines()}
    assert {f"--{name}" for _, name in options_of(command)} | set(COMMANDS) <= offered, done


@pytest.mark.parametrize("command", COMMANDS)
def test_zsh_understands_each_option(command, tmp_path):
    """The completion's own loop, with _arguments in place of zsh's: what it is told are the options of the help."""
    if not shutil.which("zsh"):
        pytest.skip("zsh is not installed")
    env = {**os.environ, "HOME": str(tmp_path), "PATH": f"{BUILD}:{os.environ['PATH']}"}
    script = (f"_arguments() {{ print -rl -- \"$@\" }}; _describe() {{ print -rl -- $commands }}; words=(npk {command} ''); CURRENT=3; "
              f"source {ROOT}/contrib/completions/npk.zsh")
    done = subprocess.run(["zsh", "-fc", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, ""), done
    if command == "help":
        assert {line.split(":")[0] for line in done.stdout.splitlines()} == set(COMMANDS)
        return
    told = set(re.findall(r"\)(--[a-z-]+)\[", done.stdout))
    assert told == {f"--{name}" for _, name in options_of(command)}


def complete(words, cwd):
    """What bash offers for the last of the words."""
    script = f"source {ROOT}/contrib/completions/npk.bash\n" + \
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); compopt() { :; }; _npk; printf "%s\\n" "${COMPREPLY[@]}"'
    env = {**os.environ, "PATH": f"{BUILD}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script, "bash", *words], cwd=cwd, env=env, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split("\n")[:-1]


def test_bash_completes_commands_options_and_arrays(tmp_path):
    for name in ("digits.npk", "names.npk"):
        copy_golden(name, tmp_path)
    assert complete(["npk", "ver"], tmp_path) == ["verify"]
    assert complete(["npk", "import", "-f", "safe"], tmp_path) == ["safetensors"]
    assert complete(["npk", "drop", "digits.npk", "labels", "im"], tmp_path) == ["images"]
    assert complete(["npk", "get", "digits.npk", ""], tmp_path) == ["images", "labels", "pixels"]
    assert complete(["npk", "get", "-o", "x", "digits.npk", "la"], tmp_path) == ["labels"]
    assert complete(["npk", "cat", "names.npk", "a\\ "], tmp_path) == [""]
    assert "a\\ b" in complete(["npk", "cat", "names.npk", "a"], tmp_path)
    assert complete(["npk", "cat", "digits.npk", "-f", "n"], tmp_path) == ["npy"]
    assert complete(["npk", "get", "di"], tmp_path) == ["digits.npk"]
    assert complete(["npk", "get", "$(touch ran)", ""], tmp_path) == [""] and not (tmp_path / "ran").exists()
    for command in COMMANDS[:-1]:
        offered = complete(["npk", command, "-"], tmp_path)
        assert set(offered) == {w for letter, name in options_of(command) for w in (f"-{letter}", f"--{name}")}


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_run(command, tmp_path):
    copy_golden("digits.npk", tmp_path)
    examples = examples_of(help_of(command))
    assert any(command in re.findall(r"\bnpk ([a-z]+)", line) for line in examples), examples
    run_examples(examples, tmp_path)


def test_examples_of_the_man_page_run(tmp_path):
    copy_golden("digits.npk", tmp_path)
    text = (ROOT / "tools" / "npk.1").read_text().replace("\\-", "-").replace("\\(aq", "'")
    examples = re.search(r"^\.SH EXAMPLES\n\.nf\n(.*?)\.fi", text, re.MULTILINE | re.DOTALL)[1].splitlines()
    assert len(examples) >= 5
    run_examples(examples, tmp_path)


SILENT = {"create", "save", "append", "replace", "drop", "compact", "clone", "rename", "reset", "import", "export", "umount", "batch",
          "pack", "unpack", "repair"}    # what changes something says nothing


def run_examples(examples, cwd):
    env = {**os.environ, "PATH": f"{BUILD}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "contrib" / "python")}
    for line in examples:
        words = re.findall(r"\bnpk ([a-z]+)", line)
        assert words
        if "numpackfs " in line or "doctor" in words:
            require_fuse()
        done = subprocess.run(["sh", "-ec", line], cwd=cwd, env=env, capture_output=True, timeout=PATIENCE)
        assert (done.returncode, done.stderr) == (0, b""), (line, done)
        out = re.search(r"-o (\S+\.npy)", line)
        assert done.stdout or out or set(words) & SILENT, line
        if out:
            np.load(cwd / out[1])


def test_the_man_page_is_well_formed():
    if not shutil.which("groff"):
        pytest.skip("groff is not installed")
    done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", str(ROOT / "tools" / "npk.1")], capture_output=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, b"")
