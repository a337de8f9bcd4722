"""npk import and export against NumPy, pandas, the safetensors package and unzip: every dtype there and back, and broken
files refused with the store as it was."""

import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy

from harness import PATIENCE, SANITIZED, program, same, scaled
from npkrun import FAILED, USAGE, good, refused, run
from npkwrite import DTYPES, Spec, write_store

WITHOUT_COMPLEX = [d for d in DTYPES if not d.startswith("complex")]


def get(store, name):
    return np.load(io.BytesIO(good("get", store, name)))


def names(store):
    return good("ls", store).decode().splitlines()


def sample(dtype, shape, seed=0):
    """Every pattern of bits is possible, NaNs of all kinds and subnormals too."""
    rng = np.random.default_rng([seed, DTYPES.index(dtype)])
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype("?")
    return np.frombuffer(rng.bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize), dtype).reshape(shape)


def bits(a):
    return (a.dtype, a.shape, a.tobytes())


@pytest.fixture(scope="module")
def every(tmp_path_factory):
    """A store with every dtype in three shapes, some rows of them deleted."""
    path = tmp_path_factory.mktemp("every") / "every.npk"
    arrays, specs = {}, {}
    for dtype in DTYPES:
        for shape in [(1000,), (300, 7), (20, 3, 4), (0, 5)]:
            name = f"{dtype}_{len(shape)}_{shape[0]}"
            specs[name] = Spec(sample(dtype, shape), deleted=[3, 11] if shape[0] else None)
            arrays[name] = specs[name].logical()
    write_store(path, specs)
    return path, arrays


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "t.npk"
    write_store(path, {"old": Spec(np.arange(5))})
    return path


class untouched:
    """The store has its one array, is sound, and has nothing else in it."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        pass

    def __exit__(self, kind, *_):
        if kind is None:
            assert names(self.path) == ["old"]
            same(get(self.path, "old"), np.arange(5))
            assert good("verify", self.path).decode().splitlines()[-1] == "clean: damage 0, warnings 0, notes 0"
            assert {p.name for p in self.path.iterdir()} <= {"data_old.npkd", "metadata.npkm", ".numpackfs.lock"}


# --- .npz -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [[], ["--compress", "6"]], ids=["stored", "deflated"])
@pytest.mark.parametrize("pipe", [False, True], ids=["file", "pipe"])
def test_npz_out_is_numpys(every, tmp_path, level, pipe):
    path, arrays = every
    if pipe:
        (tmp_path / "a.npz").write_bytes(good("export", path, "-", "--format", "npz", *level))
    else:
        good("export", path, tmp_path / "a.npz", *level)
    with np.load(tmp_path / "a.npz") as z:
        assert sorted(z.files) == sorted(arrays)
        for name, a in arrays.items():
            assert bits(z[name]) == bits(a)
    with zipfile.ZipFile(tmp_path / "a.npz") as z:
        assert z.testzip() is None
        assert {i.compress_type for i in z.infolist()} == {8 if level else 0}
    if shutil.which("unzip"):
        subprocess.run(["unzip", "-tq", str(tmp_path / "a.npz")], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "deflated"])
@pytest.mark.parametrize("pipe", [False, True], ids=["file", "pipe"])
def test_npz_in_is_numpys(every, target, tmp_path, save, pipe):
    _, arrays = every
    arrays = {**arrays, "fortran": np.asfortranarray(np.arange(6000).reshape(20, 30, 10)), "big": np.arange(77, dtype=">f4")}
    save(tmp_path / "a.npz", **arrays)
    if pipe:
        good("import", target, "-", "--format=npz", input=(tmp_path / "a.npz").read_bytes())
    else:
        good("import", target, tmp_path / "a.npz")
    assert names(target) == sorted([*arrays, "old"])
    for name, a in arrays.items():
        assert bits(get(target, name)) == bits(np.ascontiguousarray(a).astype(a.dtype.newbyteorder("<")))


def test_npz_there_and_back(every, target, tmp_path):
    path, arrays = every
    good("export", path, tmp_path / "a.npz", "-z", "1")
    good("import", target, tmp_path / "a.npz", "bool_1_1000", "float32_2_300")
    assert names(target) == ["bool_1_1000", "float32_2_300", "old"]
    for name in ("bool_1_1000", "float32_2_300"):
        assert bits(get(target, name)) == bits(arrays[name])
    line = refused(FAILED, "import", target, tmp_path / "a.npz", "bool_1_1000", "nope")
    assert "no array 'nope'" in line


def small_npz(compress=zipfile.ZIP_STORED, **members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compress) as z:
        for name, data in members.items():
            z.writestr(name if name.endswith(("x", "/")) and "." in name else f"{name}.npy", data)
    return out.getvalue()


def npy_bytes(a):
    out = io.BytesIO()
    np.save(out, a)
    return out.getvalue()


def cases_npz():
    a = npy_bytes(np.arange(300))
    whole = small_npz(a=a, b=a)
    packed = small_npz(zipfile.ZIP_DEFLATED, a=a, b=a)
    yield "empty", b"", "too short"
    yield "not a zip", bytes(4000), "no end record"
    for n in (10, 100, len(whole) // 2, len(whole) - 30, len(whole) - 1):
        yield f"cut at {n}", whole[:n], ""
    yield "no npy", small_npz(**{"letter.tx": b"hello"}), "no .npy"
    yield "path traversal", small_npz(**{"../../evil": a}), "'/'"
    yield "absolute path", small_npz(**{"/etc/evil": a}), "'/'"
    yield "member longer", small_npz(a=a + b"x"), "header wants"
    yield "member shorter", small_npz(a=a[:-1]), "header wants"
    yield "objects", small_npz(a=npy_bytes(np.array([None]))), "member 'a'"
    yield "0-d", small_npz(a=npy_bytes(np.array(3))), "0 dimensions"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z, pytest.warns(UserWarning):
        z.writestr("a.npy", a)
        z.writestr("a.npy", a)
    yield "twice", out.getvalue(), "twice"
    yield "wrong crc", whole.replace(b"\x07\x00\x00\x00\x00\x00\x00\x00\x08", b"\x07\x00\x00\x00\x00\x00\x00\x01\x08"), "CRC"
    middle = packed.index(b"PK\1\2") // 3
    yield "damaged deflate", packed[:middle] + bytes([packed[middle] ^ 0xFF]) + packed[middle + 1:], "member 'a'"
    method = bytearray(whole)
    at = whole.index(b"PK\1\2")
    method[at + 10] = 12
    yield "bzip2", bytes(method), "method 12"
    locked = bytearray(whole)
    locked[at + 8] |= 1
    yield "encrypted", bytes(locked), "encrypted"
    huge = bytearray(packed)
    at = packed.index(b"PK\1\2")
    huge[at + 24:at + 28] = struct.pack("<I", 0xFFFFFFF0)
    yield "a size that cannot be", bytes(huge), "cannot be made"
    # A bomb: two entries of the list point at the same bytes.
    over = bytearray(whole)
    first = whole.index(b"PK\1\2")
    second = whole.index(b"PK\1\2", first + 4)
    over[second + 42:second + 46] = over[first + 42:first + 46]
    yield "overlapping members", bytes(over), "lie on each other"
    # Another: a header that promises 1 KiB and a stream that gives a gigabyte.
    c = zlib.compressobj(9, zlib.DEFLATED, -15)
    many = c.compress(npy_bytes(np.zeros(128))) + b"".join(c.compress(bytes(1 << 20)) for _ in range(64)) + c.flush()
    bomb = bytearray(small_npz(zipfile.ZIP_DEFLATED, a=npy_bytes(np.zeros(128))))
    head, tail = bomb[:30 + 5], bomb[bomb.index(b"PK\1\2"):]
    tail[20:24] = struct.pack("<I", len(many))
    end = tail.index(b"PK\5\6")
    tail[end + 16:end + 20] = struct.pack("<I", len(head) + len(many))
    yield "a stream that does not end", bytes(head + many + tail), None
    count = bytearray(whole)
    count[-12:-10] = count[-14:-12] = struct.pack("<H", 60000)
    yield "a count that cannot be", bytes(count), "cannot be"


@pytest.mark.parametrize("what,data,why", list(cases_npz()), ids=lambda v: v if isinstance(v, str) and len(v) < 40 else "")
def test_broken_npz(target, tmp_path, what, data, why):
    (tmp_path / "a.npz").write_bytes(data)
    if why is None:    # what follows the array within a member is never made
        good("import", target, tmp_path / "a.npz")
        same(get(target, "a"), np.zeros(128))
        assert (target / "data_a.npkd").stat().st_size == 1024
        return
    with untouched(target):
        line = refused(FAILED, "import", target, tmp_path / "a.npz")
        assert why in line and ("a.npz" in line or why in ("'/'", "0 dimensions")), line


# --- safetensors ------------------------------------------------------------------------------------------------------


def test_safetensors_out_and_in(every, target, tmp_path):
    path, arrays = every
    fit = [n for n in arrays if not n.startswith("complex")]
    good("export", path, tmp_path / "a.safetensors", *fit)
    told = safetensors.numpy.load_file(tmp_path / "a.safetensors")
    assert sorted(told) == sorted(fit)
    for name in fit:
        assert bits(told[name]) == bits(arrays[name])
    again = {n: arrays[n] for n in fit}
    safetensors.numpy.save_file(again, tmp_path / "b.safetensors", metadata={"made": "by us"})
    for source in ("a", "b"):
        good("import", target, tmp_path / f"{source}.safetensors")
        for name in fit:
            assert bits(get(target, name)) == bits(arrays[name])
    good("import", target, "-", "--format", "safetensors", input=(tmp_path / "b.safetensors").read_bytes())


def test_safetensors_refuses_complex_before_it_writes(every, tmp_path):
    path, _ = every
    (tmp_path / "a.safetensors").write_bytes(b"old")
    assert "complex128, which the format lacks" in refused(FAILED, "export", path, tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == b"old" and os.listdir(tmp_path) == ["a.safetensors"]


def tensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def cases_tensors():
    def one(**change):
        return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **change}}

    yield "empty", b"", "ends at byte 0"
    yield "huge header", struct.pack("<Q", 1 << 62), "the format allows"
    yield "no header", bytes(8), "a header of 0 bytes"
    yield "header cut", struct.pack("<Q", 1000) + b"{", "ends at byte"
    yield "no json", tensors(b"hello"), "'{'"
    yield "rest", tensors(b"{} x"), "the end"
    yield "data cut", tensors(one(), bytes(7)), "ends at byte"
    yield "data long", tensors(one(), bytes(9)), "belong to no tensor"
    yield "bf16", tensors(one(dtype="BF16", data_offsets=[0, 4]), bytes(4)), "BF16"
    yield "offsets", tensors(one(data_offsets=[0, 4]), bytes(8)), "its shape wants 8"
    yield "backwards", tensors(one(data_offsets=[8, 0]), bytes(8)), "bytes 8 to 0"
    yield "hole", tensors(one(data_offsets=[4, 12]), bytes(12)), "do not begin"
    yield "negative", tensors(one(shape=[-2]), bytes(8)), ""
    yield "overflow", tensors(one(shape=[1 << 62, 1 << 62]), bytes(8)), "overflows"
    yield "overlap", tensors({**one(), "b": one()["a"]}, bytes(8)), "do not begin"
    yield "missing", tensors({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)), "is missing"
    yield "traversal", tensors({"../x": one()["a"]}, bytes(8)), "'/'"
    yield "twice", tensors(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'), "twice"
    yield "0-d", tensors(one(shape=[], data_offsets=[0, 4]), bytes(4)), "0 dimensions"
    yield "deep", tensors(b'{"__metadata__":' + b"[" * 5000 + b"]" * 5000 + b"}"), ""


@pytest.mark.parametrize("what,data,why", list(cases_tensors()), ids=lambda v: v if isinstance(v, str) and len(v) < 14 else "")
def test_broken_safetensors(target, tmp_path, what, data, why):
    (tmp_path / "a.safetensors").write_bytes(data)
    with untouched(target):
        line = refused(FAILED, "import", target, tmp_path / "a.safetensors")
        assert why in line, line


# --- many arrays, large arrays ---------------------------------------------------------------------------------------


def peak_mib(*args):
    """The peak memory of npk. A process begins with the peak of the one it was forked from, so that one is small."""
    script = "import resource, subprocess, sys\n" \
        "subprocess.run(sys.argv[1:], check=True)\nprint(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    done = subprocess.run([sys.executable, "-S", "-c", script, str(program("npk")), *map(str, args)], capture_output=True,
                          text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    return int(done.stdout) / 1024


def test_thousands_of_arrays_out_and_in(target, tmp_path):
    """More members than the pieces that are compressed at a time, of lengths around a piece and a block."""
    rng = np.random.default_rng(6)
    n = scaled(500)
    arrays = {f"a{i}": rng.integers(0, 9, (i % 40, 5), "i4") for i in range(n)}
    for i, size in enumerate([(512 << 10) - 128, (512 << 10) - 127, 512 << 10, (1 << 20) - 128, (1 << 20) - 127, 3 << 20]):
        arrays[f"long{i}"] = rng.integers(0, 99, size, "u1")
    write_store(tmp_path / "many.npk", {name: Spec(a) for name, a in arrays.items()})
    for file, flags in [("stored.npz", []), ("packed.npz", ["-z", "1"]), ("all.safetensors", [])]:
        good("export", tmp_path / "many.npk", tmp_path / file, *flags)
        told = np.load(tmp_path / file) if file.endswith("npz") else safetensors.numpy.load_file(tmp_path / file)
        assert sorted(told) == sorted(arrays)
        for name, a in arrays.items():
            assert bits(told[name]) == bits(a)
        told = None
        (tmp_path / f"piped_{file}").write_bytes(good("export", tmp_path / "many.npk", "-", "-f", file.split(".")[1], *flags))
    assert (tmp_path / "piped_all.safetensors").read_bytes() == (tmp_path / "all.safetensors").read_bytes()
    for file, long in (("piped_stored.npz", 2), ("piped_packed.npz", 5)):    # whose sizes stand behind them
        with zipfile.ZipFile(tmp_path / file) as z:
            assert z.testzip() is None and sum(i.flag_bits & 8 != 0 for i in z.infolist()) == long
            assert all(bits(np.load(io.BytesIO(z.read(f"{name}.npy")))) == bits(a) for name, a in arrays.items())
    good("import", target, tmp_path / "piped_packed.npz")
    good("export", target, tmp_path / "again.safetensors", *arrays)
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "all.safetensors").read_bytes()


@pytest.mark.parametrize("level", [0, 1])
def test_npz_goes_behind_what_is_there(every, tmp_path, level):
    """A file that is only ever written at its end cannot have sizes put in afterwards."""
    path, arrays = every
    out = tmp_path / "a.npz"
    out.touch()
    with open(out, "ab") as f:
        done = subprocess.run([program("npk"), "export", path, "-", "-f", "npz", *(["-z", "1"] if level else [])], stdout=f,
                              timeout=PATIENCE)
    assert done.returncode == 0
    with np.load(out) as z:
        assert all(bits(z[name]) == bits(a) for name, a in arrays.items())


@pytest.mark.skipif(SANITIZED, reason="sanitizers keep memory of their own")
def test_memory_does_not_grow_with_the_data(tmp_path):
    """40 MiB in 80 arrays, and in one: 20 MiB at most, of which the process that starts npk has ten."""
    block = np.random.default_rng(7).integers(0, 9, 512 << 10, "u1")
    write_store(tmp_path / "many.npk", {f"a{i}": Spec(block) for i in range(80)})
    write_store(tmp_path / "one.npk", {"a": Spec(np.tile(block, 80).reshape(-1, 64))})
    for store, files in (("many", ["s.npz", "a.safetensors"]), ("one", ["s.npz", "a.safetensors", "a.npy", "a.raw"])):
        for file in files:
            assert peak_mib("export", tmp_path / f"{store}.npk", tmp_path / file) <= 20
        shutil.rmtree(tmp_path / "back.npk", ignore_errors=True)
        good("create", tmp_path / "back.npk")
        for file in files[:3]:
            assert peak_mib("import", tmp_path / "back.npk", tmp_path / file) <= 20


# --- CSV and text -----------------------------------------------------------------------------------------------------


def close_enough(got, want):
    """Equal values: a NaN is a NaN, and zeros keep their sign."""
    same_nan = np.array_equal(got, want, equal_nan=want.dtype.kind in "fc")
    if want.dtype.kind == "f":
        return same_nan and np.array_equal(np.signbit(got[got == 0]), np.signbit(want[want == 0]))
    return same_nan


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(4000,), (700, 9)], ids=str)
def test_csv_there_and_back(target, tmp_path, dtype, shape):
    a = sample(dtype, shape, seed=1)
    np.save(tmp_path / "a.npy", a)
    good("save", target, tmp_path / "a.npy")
    for file, flags in [("a.csv", []), ("b.txt", []), ("c.csv", ["--delimiter", ";"]), ("d.tsv", ["--delimiter", "tab"])]:
        good("export", target, tmp_path / file, "a", *flags)
        good("import", target, tmp_path / file, "--dtype", dtype, "-n", "b")
        got = get(target, "b")
        assert got.dtype == a.dtype and got.shape == a.shape and close_enough(got, a)


@pytest.mark.parametrize("dtype", WITHOUT_COMPLEX)
def test_csv_out_is_read_by_pandas_and_numpy(target, tmp_path, dtype):
    a = sample(dtype, (500, 3), seed=2)
    np.save(tmp_path / "a.npy", a)
    good("save", target, tmp_path / "a.npy")
    good("export", target, tmp_path / "a.csv", "a")
    whole = a.astype("u1") if dtype == "bool" else a
    ours = np.loadtxt(tmp_path / "a.csv", delimiter=",", dtype=whole.dtype)
    assert close_enough(ours, whole)
    frame = pd.read_csv(tmp_path / "a.csv", header=None, float_precision="round_trip", dtype=whole.dtype if dtype != "float16" else "float32")
    assert close_enough(frame.to_numpy().astype(whole.dtype), whole)


@pytest.mark.parametrize("dtype", WITHOUT_COMPLEX)
def test_csv_in_is_what_pandas_and_numpy_wrote(target, tmp_path, dtype):
    a = sample(dtype, (500, 3), seed=3)
    pd.DataFrame(a).to_csv(tmp_path / "p.csv", index=False, na_rep="nan")
    good("import", target, tmp_path / "p.csv", "--dtype", dtype, "--skip", "1")
    assert close_enough(get(target, "p"), a)
    np.savetxt(tmp_path / "n.txt", a, fmt="%.17g" if a.dtype.kind == "f" else "%d")
    good("import", target, tmp_path / "n.txt", "--dtype", dtype)
    assert close_enough(get(target, "n"), a)


def test_csv_in_agrees_with_python_on_any_decimal(target, tmp_path):
    rng = np.random.default_rng(4)
    words = []
    for _ in range(scaled(40000)):
        n = int(rng.choice([1, 2, 8, 15, 16, 17, 18, 19, 20, 21, 25, 40, 800]))
        s = "".join(map(str, rng.integers(0, 10, n)))
        k = int(rng.integers(-1, n + 1))
        s = s if k < 0 else s[:k] + "." + s[k:]
        words.append(("-" if rng.random() < .3 else "") + s + (f"e{rng.integers(-345, 330)}" if rng.random() < .6 else ""))
    for x in np.frombuffer(rng.bytes(8 * scaled(2000)), "f8"):    # half-way between two doubles, and a hair beside
        y = np.nextafter(x, np.inf)
        if np.isfinite(x) and np.isfinite(y) and 1e-290 < abs(x) < 1e290:
            h = (Fraction(float(x)) + Fraction(float(y))) / 2
            n, d = h.numerator, h.denominator.bit_length() - 1    # denominator 2^d: times 5^d it is decimal
            words += [f"{n * 5 ** d}e-{d}", f"{n * 5 ** d}1e-{d + 1}", f"{n * 5 ** d * 10 - 1}e-{d + 1}"]
    (tmp_path / "w.csv").write_text("\n".join(words) + "\n")
    good("import", target, tmp_path / "w.csv", "--dtype", "f8")
    assert bits(get(target, "w")) == bits(np.array([float(w) for w in words]))


def test_csv_of_any_double_has_numpys_digits(target, tmp_path):
    """As few digits as NumPy finds; the form is that of C's %g."""
    a = np.frombuffer(np.random.default_rng(5).bytes(8 * scaled(30000)), "f8")
    a = np.concatenate([a[np.isfinite(a)], 2.0 ** np.arange(-1074, 1024), 10.0 ** np.arange(-307, 308)])
    np.save(tmp_path / "a.npy", a)
    good("save", target, tmp_path / "a.npy")
    for text, x in zip(good("cat", target, "a").decode().split(), a):
        want = np.format_float_scientific(x, unique=True, trim="-").split("e")[0].lstrip("-").replace(".", "").strip("0")
        assert text.split("e")[0].lstrip("-").replace(".", "").strip("0") == want, (text, x)
        assert float(text) == x


@pytest.mark.parametrize("text,options,want", [
    ("1,2\n3,4\n", [], np.array([[1, 2], [3, 4]])),
    ("1\n2\n", [], np.array([1, 2])),
    ("1,2.5\n3,4\n", [], np.array([[1, 2.5], [3, 4]])),
    ("1,2\n3,4j\n", [], np.array([[1, 2], [3, 4j]])),
    ("(1+2j),nan+infj\n", [], np.array([[1 + 2j, complex(np.nan, np.inf)]])),
    ("1;2\r\n3;4\r\n", [], np.array([[1, 2], [3, 4]])),
    ("  1   2\n\t3\t 4  \n", ["-d", "blank"], np.array([[1, 2], [3, 4]])),
    ("1\t2\n3\t4", [], np.array([[1, 2], [3, 4]])),
    ("# a title\n1,2 # why\n\n3,4\n", [], np.array([[1, 2], [3, 4]])),
    ('"1","2"\n"3","4"\n', [], np.array([[1, 2], [3, 4]])),
    ("x,y\n1,2\n", ["--skip", "1"], np.array([[1, 2]])),
    ("1,2,3,4\n5,6,7,8\n", ["--row-shape", "2x2"], np.arange(1, 9).reshape(2, 2, 2)),
    ("1\n2\n", ["--row-shape", "1"], np.array([[1], [2]])),
    ("true,False\n0,1\n", ["-t", "bool"], np.array([[True, False], [False, True]])),
    ("", ["-t", "f4", "--row-shape", "3"], np.zeros((0, 3), "f4")),
    ("-128\n127\n", ["-t", "i1"], np.array([-128, 127], "i1")),
    ("18446744073709551615\n", ["-t", "u8"], np.array([2**64 - 1], "u8")),
    ("+1, -2 ,3 \n", [], np.array([[1, -2, 3]])),
])
def test_csv_dialects(target, text, options, want):
    good("import", target, "-", "-f", "csv", "-n", "a", *options, input=text.encode())
    got = get(target, "a")
    assert got.dtype == want.dtype and got.shape == want.shape
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("text,options,why", [
    ("", [], "how many a row has"),
    ("1,2\n3\n", [], "line 2: 1 elements, the first has 2"),
    ("1,2\n3,4,5\n", [], "line 2: more than 2"),
    ("1,2\n3,x\n", [], "line 2: not a number: 'x'"),
    ("1,\n", ["-t", "f8"], "line 1: an element is missing"),
    ("128\n", ["-t", "i1"], "line 1: the dtype does not hold '128'"),
    ("-1\n", ["-t", "u4"], "line 1: the dtype does not hold '-1'"),
    ("1.5\n", ["-t", "i4"], "line 1: not a number of the dtype: '1.5'"),
    ("0x10\n", ["-t", "f8"], "'0x10'"),
    ("1,5e\n", ["-t", "f8"], "'5e'"),
    ("2\n", ["-t", "bool"], "'2'"),
    ("1,2\n", ["--row-shape", "3"], "lines of 2 elements, a row has 3"),
    ("1" * 3_000_000, ["-t", "f8"], "line 1: longer than"),
    ("\n".join(["1"] * 600_000) + "\n1.5\n", [], "line 600001: not what the lines before have"),
], ids=lambda v: v if isinstance(v, str) and len(v) < 60 else "")
def test_broken_csv(target, text, options, why):
    with untouched(target):
        line = refused(FAILED, "import", target, "-", "-f", "csv", "-n", "a", *options, input=text.encode())
        assert why in line and "standard input" in line, line


def test_numbers_do_not_follow_the_locale(target):
    """A decimal comma is the locale's, not the file's."""
    for env in ({"LC_ALL": "de_DE.UTF-8"}, {"LC_ALL": "C"}):
        good("import", target, "-", "-f", "csv", "-n", "a", input=b"1.5;2\n", env={**os.environ, **env})
        assert good("cat", target, "a", env={**os.environ, **env}) == b"1.5,2\n"


def test_csv_refuses_what_it_cannot_hold(every, tmp_path):
    path, _ = every
    for name, why in [("float32_3_20", "3 dimensions")]:
        assert why in refused(FAILED, "export", path, tmp_path / "a.csv", name)
    assert "name one" in refused(FAILED, "export", path, tmp_path / "a.csv")
    good("export", path, tmp_path / "a.csv", "int32_3_20", "--flat", "--header", "a title")
    assert (tmp_path / "a.csv").read_text().startswith("a title\n")
    back = np.loadtxt(tmp_path / "a.csv", delimiter=",", skiprows=1, dtype="i4").reshape(-1, 3, 4)
    same(back, every[1]["int32_3_20"])
    assert os.listdir(tmp_path) == ["a.csv"]


# --- raw and .npy -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_raw_there_and_back(every, target, tmp_path, dtype):
    path, arrays = every
    for shape, flags in [("1_1000", []), ("2_300", ["--row-shape", "7"]), ("3_20", ["--row-shape", "3x4"]), ("2_0", ["-s", "5"])]:
        want = arrays[f"{dtype}_{shape}"]
        good("export", path, tmp_path / "a.raw", f"{dtype}_{shape}")
        assert (tmp_path / "a.raw").read_bytes() == want.tobytes()
        good("import", target, tmp_path / "a.raw", "--dtype", dtype, *flags)
        assert bits(get(target, "a")) == bits(want)
        good("export", path, tmp_path / "b.npy", f"{dtype}_{shape}")
        assert bits(np.load(tmp_path / "b.npy")) == bits(want)
        good("import", target, tmp_path / "b.npy")
        assert bits(get(target, "b")) == bits(want)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)], ids=str)
def test_npy_of_every_version_dtype_and_order(target, tmp_path, version):
    arrays = {}
    for dtype in DTYPES:
        for shape in [(5, 8), (4, 3, 5), (0, 5)]:
            for order in "CF":
                for end in "<>" if np.dtype(dtype).itemsize > 1 else "|":
                    name = f"{dtype}_{'x'.join(map(str, shape))}_{order}{'lb|'['<>|'.index(end)]}"
                    arrays[name] = sample(dtype, shape, seed=8).astype(np.dtype(dtype).newbyteorder(end), order=order)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as z:
        for name, a in arrays.items():
            out = io.BytesIO()
            np.lib.format.write_array(out, a, version=version)
            z.writestr(f"{name}.npy", out.getvalue())
    good("import", target, tmp_path / "a.npz")
    good("export", target, tmp_path / "b.npz")
    with np.load(tmp_path / "b.npz") as z:
        for name, a in arrays.items():
            assert bits(z[name]) == bits(np.ascontiguousarray(a).astype(a.dtype.newbyteorder("<")))
    for name in list(arrays)[::29]:    # alone, from a file and from a pipe
        with open(tmp_path / "one.npy", "wb") as f:
            np.lib.format.write_array(f, arrays[name], version=version)
        good("import", target, tmp_path / "one.npy")
        good("import", target, "-", "-f", "npy", "-n", "two", input=(tmp_path / "one.npy").read_bytes())
        want = np.ascontiguousarray(arrays[name]).astype(arrays[name].dtype.newbyteorder("<"))
        assert bits(get(target, "one")) == bits(get(target, "two")) == bits(want)


@pytest.mark.parametrize("a,why", [
    (np.array(["text"]), "<U4"), (np.array([b"text"]), "|S4"), (np.array([None]), "|O"), (np.zeros(3, "M8[s]"), "M8"),
    (np.zeros(3, "m8[s]"), "m8"), (np.zeros(3, "f4,i4"), "structured"), (np.zeros(3, np.longdouble), "16"), (np.array(3), "0 dimensions"),
    (np.zeros(3, np.clongdouble), "c32"), (np.zeros(3, "V5"), "V5"),
], ids=lambda v: v.dtype.str if isinstance(v, np.ndarray) else "")
def test_npy_that_numpack_cannot_hold(target, tmp_path, a, why):
    np.save(tmp_path / "a.npy", a)
    with untouched(target):
        assert why in refused(FAILED, "import", target, tmp_path / "a.npy")


def test_an_empty_file_is_no_array(target, tmp_path):
    (tmp_path / "a.npy").write_bytes(b"")
    with untouched(target):
        for args, data in [(["a.npy"], b""), (["-", "-f", "npy", "-n", "a"], b"")]:
            assert "is empty" in refused(FAILED, "import", target, *args, cwd=tmp_path, input=data)


@pytest.mark.parametrize("kind", ["npy", "npz", "safetensors"])
def test_a_file_that_was_cut_off_leaves_the_store_as_it_was(target, tmp_path, kind):
    """The first array is whole and read to its end; the damage is in the last. (Every byte: tests/unit/test_import.c.)"""
    a = np.arange(100_000, dtype="f8")
    file = tmp_path / f"a.{kind}"
    if kind == "npy":
        np.save(file, a)
    elif kind == "npz":
        np.savez(file, old=a, new=a)
    else:
        safetensors.numpy.save_file({"old": a, "new": a}, file)
    whole = file.read_bytes()
    for cut in (1, 9, 1000, a.nbytes // 2):
        file.write_bytes(whole[:-cut])
        with untouched(target):
            assert f"a.{kind}" in refused(FAILED, "import", target, file)
            assert "standard input" in refused(FAILED, "import", target, "-", "-f", kind, *(["-n", "a"] if kind == "npy" else []),
                                                input=whole[:-cut])


def test_what_a_format_cannot_hold_leaves_the_file_as_it_was(every, tmp_path):
    path, _ = every
    for file, names, why in [("a.csv", ["int8_3_20"], "3 dimensions"), ("a.csv", [], "name one"), ("a.npy", [], "name one"),
                             ("a.safetensors", ["bool_1_1000", "complex64_1_1000"], "complex64, which the format lacks")]:
        (tmp_path / file).write_bytes(b"old")
        assert why in refused(FAILED, "export", path, tmp_path / file, *names)
        assert (tmp_path / file).read_bytes() == b"old" and os.listdir(tmp_path) == [file]
        (tmp_path / file).unlink()


def test_broken_raw(target):
    with untouched(target):
        assert "no whole number of rows" in refused(FAILED, "import", target, "-", "-f", "raw", "-t", "f4", "-s", "3", "-n", "a", input=bytes(16))
        assert "an element has 4" in refused(FAILED, "import", target, "-", "-f", "raw", "-t", "f4", "-n", "a", input=bytes(14))
        refused(USAGE, "import", target, "-", "-f", "raw", "-n", "a")


# --- usage, and what is left to Python --------------------------------------------------------------------------------


@pytest.mark.parametrize("args,why", [
    (["x.xyz"], "does not tell its format"), (["x.npk"], "is a store"), (["x", "-f", "xml"], "xml"), (["x.npz", "--dtype", "f4"], "--dtype"),
    (["x.npz", "-n", "a"], "--name"), (["x.csv", "a"], "--name"), (["x.csv", "-t", "f5"], "f5"), (["x.csv", "-s", "3x"], "3x"),
    (["x.csv", "-d", "ab"], "ab"), (["x.csv", "-d", "1"], "'1'"), (["x.csv", "-k", "-1"], "-1"), (["-", "-f", "csv"], "no name"),
])
def test_wrong_usage(target, args, why):
    with untouched(target):
        assert why in refused(USAGE, "import", target, *args)


def test_exports_wrong_usage(target, tmp_path):
    for args, why in [(["x.npz", "-d", ","], "--delimiter"), (["x.npz", "-z", "0"], "'0'"), (["x.csv", "-z", "1"], "--compress"),
                      (["x.safetensors", "-r", "0"], "--rows"), (["x.csv", "-d", "."], "'.'")]:
        assert why in refused(USAGE, "export", target, *args, cwd=tmp_path)
    assert "twice" in refused(FAILED, "export", target, tmp_path / "x.npz", "old", "old")
    assert os.listdir(tmp_path) == ["t.npk"]


@pytest.mark.parametrize("suffix", ["parquet", "feather", "h5", "zarr", "pt"])
def test_without_the_python_package_that_is_said(target, tmp_path, suffix):
    """A python3 that finds nothing stands in for one without the package."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "python3").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}
    with untouched(target):
        for verb in ("import", "export"):
            assert "pip" in refused(FAILED, verb, target, tmp_path / f"a.{suffix}", env=env)


def test_the_python_package_is_called_with_what_was_said(target, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").write_text('#!/bin/sh\n[ "$1" = -c ] && exit 0\necho "$@"\nexit 7\n')
    (tmp_path / "bin" / "python3").chmod(0o755)
    done = run("export", target, "a.parquet", "old", "b c", env={**os.environ, "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"})
    assert (done.returncode, done.stdout) == (7, f"-m numpackfs.io export --format parquet {target} a.parquet old b c\n".encode())
