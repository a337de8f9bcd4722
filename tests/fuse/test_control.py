"""The control tree: what can be read of a mount and of each array, and that only names lead there."""

import errno
import json
import os
import re
import time

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from harness import ARRAYS, GOLDEN, component, expect_error, npy, same
from npkwrite import Spec, write_store

ROOT_FILES = ["README", "version", "config", "members", "metadata", "stats", "metrics", "log", "last_error"]
ARRAY_FILES = ["info", "shape", "dtype", "rows", "deleted", "mtime", "generation"]
MTIME = 1_700_000_000_123_456


@pytest.fixture
def three(tmp_path):
    data = np.arange(40, dtype="f4").reshape(10, 4)
    store, specs = write_store(tmp_path / "s.npk", {
        "plain": Spec(data, mtime_us=MTIME),
        "holes": Spec(data, deleted=[0, 3, 9], mtime_us=MTIME + 1),
        "parts": Spec(data, deleted=[5], segment_rows=4, mtime_us=MTIME + 2),
    })
    return store, specs


def test_the_root_lists_arrays_only(three, mount):
    with mount(three[0]) as m:
        assert sorted(os.listdir(m.path)) == ["holes.npy", "parts.npy", "plain.npy"]
        assert (m.path / ".numpack").is_dir()


def test_show_control_lists_it(three, mount):
    with mount(three[0], "show_control") as m:
        assert sorted(os.listdir(m.path)) == [".numpack", "holes.npy", "parts.npy", "plain.npy"]


def test_the_control_directory_lists_its_files(three, mount):
    with mount(three[0]) as m:
        listed = os.listdir(m.control())
        assert set(ROOT_FILES + ["arrays", "export"]) <= set(listed)
        assert sorted(os.listdir(m.control() / "arrays")) == ["holes", "parts", "plain"]
        for name in ("holes", "parts", "plain"):
            listed = os.listdir(m.control(name))
            assert set(ARRAY_FILES + ["deleted.npy", "getitem", "view", "batches", "data.csv"]) <= set(listed)
        assert os.listdir(m.control() / "export") == ["store.safetensors"]


def test_text_files_have_size_0_and_content(three, mount):
    """So that no program sizes its buffer by a text that is made when it is read (direct I/O)."""
    with mount(three[0]) as m:
        files = [m.control() / f for f in ROOT_FILES] + [m.control("holes") / f for f in ARRAY_FILES]
        for path in files:
            assert path.stat().st_size == 0, path
            text = path.read_bytes()
            if path.name != "last_error":
                assert text.endswith(b"\n"), path
            with open(path, "rb", buffering=0) as f:    # in small pieces it is the same text
                pieces = b"".join(iter(lambda: f.read(3), b""))
            if path.name not in ("stats", "metrics", "log"):
                assert pieces == text, path


def test_version_and_readme(three, mount):
    with mount(three[0]) as m:
        assert re.search(r"\b0\.1\.0\b", (m.control() / "version").read_text())
        readme = (m.control() / "README").read_text()
        assert ".numpack" in readme and "view" in readme and "getitem" in readme


def test_config_tells_value_and_origin(three, mount):
    with mount(three[0], "attr_ttl=7", env={"NUMPACKFS_THREADS": "3"}) as m:
        lines = {line.split("=")[0].strip(): line for line in (m.control() / "config").read_text().splitlines()}
        assert re.search(r"=\s*7(\.0*)?\s+#.*-o", lines["attr_ttl"]), lines["attr_ttl"]
        assert re.search(r"=\s*3\s+#.*NUMPACKFS_THREADS", lines["threads"]), lines["threads"]
        assert re.search(r"#.*built-in", lines["ctl_max"]), lines["ctl_max"]


def test_per_array_texts(three, mount):
    with mount(three[0]) as m:
        def text(name, file):
            return (m.control(name) / file).read_text()

        for name, shape, deleted in (("plain", "10 4", 0), ("holes", "7 4", 3), ("parts", "9 4", 1)):
            rows = int(shape.split()[0])
            assert text(name, "shape") == shape + "\n"
            assert text(name, "dtype") == "<f4\n"
            assert text(name, "rows") == f"{rows}\n"
            assert text(name, "deleted") == f"{deleted}\n"
            assert int(text(name, "generation")) >= 1
            info = json.loads(text(name, "info"))
            assert info["shape"] == [rows, 4] and info["dtype"] in ("float32", "<f4", "Float32"), info
            assert info["rows"] == rows and info["deleted"] == deleted and info["physical_rows"] == 10, info
        mtimes = {name: m.array(name).stat().st_mtime_ns for name in three[1]}
        assert mtimes == {n: s.mtime_us * 1000 for n, s in three[1].items()}
        # The number is the same in `mtime`, whatever its form.
        assert str(MTIME) in text("plain", "mtime").replace(".", "") or str(MTIME)[:10] in text("plain", "mtime")


def test_shape_and_dtype_of_every_golden_array(golden_mount):
    for a in ARRAYS:
        want = np.load(GOLDEN / a["expected_npy"])
        base = golden_mount(a["store"]).control(a["array"])
        assert (base / "shape").read_text() == " ".join(str(n) for n in want.shape) + "\n", a
        assert (base / "dtype").read_text() == want.dtype.str + "\n", a
        info = json.loads((base / "info").read_text())
        assert info["shape"] == list(want.shape) and info["deleted"] == a["deleted"], (a, info)


def test_deleted_npy_has_the_physical_rows(golden_mount):
    """Rows that are in deleted.npy and rows that are shown are together all rows of the data file."""
    for a in ARRAYS:
        m = golden_mount(a["store"])
        gone = np.load(m.control(a["array"]) / "deleted.npy")
        assert gone.dtype == np.dtype("<u8") and gone.ndim == 1 and len(gone) == a["deleted"], a
        assert np.all(np.diff(gone.astype("i8")) > 0) and (len(gone) == 0 or gone[-1] < a["physical_rows"]), a


def test_deleted_npy_names_the_right_rows(mount, tmp_path):
    rng = np.random.default_rng(5)
    wanted = {}
    for i, rows in enumerate([1, 63, 64, 65, 1000, 5000]):
        wanted[f"a{i}"] = Spec(np.arange(rows), deleted=sorted(rng.choice(rows, rng.integers(0, rows + 1), False).tolist()))
    store, specs = write_store(tmp_path / "s.npk", wanted)
    with mount(store) as m:
        for name, spec in specs.items():
            path = m.control(name) / "deleted.npy"
            want = np.array(spec.deleted, dtype="<u8")
            same(np.load(path), want)
            assert path.stat().st_size == 128 + want.nbytes
            if want.size:
                same(np.load(path, mmap_mode="r"), want)


def test_metadata_is_what_numpack_tells(real_numpack, mount, tmp_path):
    """metadata is get_metadata() of the library as JSON, and members its get_member_list()."""
    real_numpack.open(tmp_path / "s.npk")
    real_numpack.save({"a": np.arange(6, dtype="f4").reshape(3, 2), "b": np.arange(3, dtype="c16"), "c d": np.zeros(4, bool)})
    real_numpack.close()
    real_numpack.open(tmp_path / "s.npk")
    theirs, members = real_numpack.metadata(), real_numpack.members()
    real_numpack.close()
    with mount(tmp_path / "s.npk") as m:
        ours = json.loads((m.control() / "metadata").read_text())
        assert (m.control() / "members").read_text().splitlines() == members
    assert {k: v for k, v in ours["arrays"].items()} == theirs["arrays"]
    assert ours["total_arrays"] == theirs["total_arrays"]


def test_metrics_parse_and_count(three, mount):
    with mount(three[0]) as m:
        def read():
            families = list(text_string_to_metric_families((m.control() / "metrics").read_text()))
            assert families and all(f.name.startswith("numpackfs") for f in families), [f.name for f in families]
            assert all(f.documentation and f.type != "unknown" for f in families), families
            return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}

        before = read()
        assert 3 in before.values(), "the number of arrays"
        for _ in range(20):
            m.array("plain").read_bytes()
        after = read()
        grown = {k for k in after if k in before and after[k] > before[k]}
        assert grown, "nothing was counted"
        counters = {k for k in before if k[0].endswith("_total")}
        assert all(after[k] >= before[k] for k in counters), "a counter went back"


def test_stats_is_json(three, mount):
    with mount(three[0]) as m:
        stats = json.loads((m.control() / "stats").read_text())
        assert 3 in stats.values(), stats


def test_log_shows_the_last_lines(three, mount):
    with mount(three[0]) as m:
        log = (m.control() / "log").read_text()
        assert log.strip() and len(log.splitlines()) <= 256


def test_last_error_keeps_the_last_64(three, mount):
    with mount(three[0]) as m:
        assert m.last_errors() == []
        for i in range(100):
            expect_error(errno.ERANGE, os.stat, m.view("plain", str(1000 + i)))
        errors = m.last_errors()
        # A stat may look the name up more than once.
        assert len(errors) == 64 and "1099" in errors[-1]["message"] + errors[-1]["path"], errors[-1]
        assert {"time", "uid", "pid", "path", "errno", "message"} <= set(errors[-1])
        now = time.time()
        stamp = errors[-1]["time"]
        if isinstance(stamp, (int, float)):
            assert abs(stamp - now) < 3600 or abs(stamp / 1e6 - now) < 3600
        else:
            assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", stamp), stamp


def test_reading_a_command_file_gives_its_usage(three, mount):
    """Walking the tree never runs anything: opened for reading, a query file only says how it is used."""
    with mount(three[0]) as m:
        text = (m.control("plain") / "getitem").read_text()
        assert "sel=" in text
        assert m.last_errors() == []


def test_views_and_batches_are_not_enumerated(three, mount):
    with mount(three[0]) as m:
        assert os.listdir(m.control("plain") / "view") == []
        np.load(m.view("plain", "0:2"))
        assert os.listdir(m.control("plain") / "view") == []


def test_names_that_are_not_there(three, mount):
    with mount(three[0]) as m:
        for path in (m.path / "nothing.npy", m.control() / "nothing", m.control() / "arrays" / "nothing",
                     m.control("plain") / "nothing", m.control() / "export" / "nothing", m.path / ".nothing"):
            expect_error(errno.ENOENT, os.stat, path)
            expect_error(errno.ENOENT, os.open, path, os.O_RDONLY)
        expect_error(errno.ENOTDIR, os.stat, m.array("plain") / "x")
        expect_error(errno.EISDIR, os.open, m.control(), os.O_RDWR)


def test_names_of_arrays_with_odd_bytes(golden_mount):
    for a in ARRAYS:
        if a["store"] == "control_names.npk":
            base = golden_mount(a["store"]).path / ".numpack" / "arrays" / component(a["array"])
            info = json.loads((base / "info").read_text())
            assert a["array"] in (info.get("name"), info.get("array")), info
            assert (golden_mount(a["store"]).path / npy(a["array"])).exists()
