"""A Go and a Node program read mounted files with ordinary libraries of their registries; the sums are those of numpy. The
examples of contrib/examples search a mount, and save, change and search an array of one in every language, in C and Rust by the
library; the rows are those that numpy finds."""

import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from harness import BUILD, MODE, PATIENCE, ROOT, SANITIZED, TESTS, clean_environment, same
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
                   "disabled by GOPROXY", "ENOTCACHED", "Could not resolve host", "Failed to connect", "spurious network error")
        if any(word in done.stdout for word in offline):
            pytest.skip(f"{argv[0]} cannot reach its registry: {' '.join(done.stdout.split())[-200:]}")
        raise AssertionError(f"{argv}: {done.stdout[-3000:]}")


def go_environment(home):
    cache = ROOT / "build" / "go"
    return {**os.environ, "GOFLAGS": "-modcacherw -buildvcs=false", "GOPATH": str(cache), "GOCACHE": str(cache / "cache"),
            "HOME": str(home), "GOTOOLCHAIN": "local"}


# Packages are fetched and Go's library is compiled the first time.
@pytest.mark.timeout(600)
def test_go(numbers, tmp_path):
    if not shutil.which("go"):
        pytest.skip("go is not installed")
    m, arrays = numbers
    shutil.copytree(TESTS / "clients" / "go", tmp_path / "go")
    fetched(["go", "build", "-o", str(tmp_path / "client"), "."], tmp_path / "go", go_environment(tmp_path))
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


EXAMPLES = {"sh": ["sh"], "py": [sys.executable], "mjs": ["node"], "go": ["go", "run"]}


@pytest.fixture
def vectors(tmp_path, mount):
    spec = Spec(np.random.default_rng(31).standard_normal((400, 24)).astype("f4"), deleted=[3, 100, 101, 399], segment_rows=150)
    store, _ = write_store(tmp_path / "v.npk", {"emb": spec, "few rows": Spec(spec.logical()[:3])})
    with mount(store) as m:
        yield m, spec.logical()


@pytest.fixture(params=EXAMPLES)
def example(request, tmp_path):
    """example(mount, array, row): the finished process."""
    command = EXAMPLES[request.param]
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    argv = [*command, str(ROOT / "contrib" / "examples" / f"search.{request.param}")]
    return lambda *words: subprocess.run([*argv, *map(str, words)], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                         text=True, env=go_environment(tmp_path))


def nearest(query, rows, k=5):
    """[(row, cosine)] of the k best, in float64."""
    q, x = query.astype("f8"), rows.astype("f8")
    cosines = x @ q / (np.linalg.norm(x, axis=1) * np.linalg.norm(q))
    return [(int(i), cosines[i]) for i in np.argsort(-cosines, kind="stable")[:k]]


def check_hits(lines, want):
    got = [(int(index), float(score)) for index, score in lines]
    assert [index for index, _ in got] == [index for index, _ in want], (got, want)
    assert np.allclose([score for _, score in got], [score for _, score in want], rtol=0, atol=1e-12), (got, want)


# Go's library is compiled the first time.
@pytest.mark.timeout(600)
def test_example_searches(vectors, example):
    m, x = vectors
    for array, row, count in (("emb", 17, 5), ("emb", len(x) - 1, 5), ("few rows", 1, 3)):
        done = example(m.path, array, row)
        assert (done.returncode, done.stderr) == (0, "")
        lines = [line.split() for line in done.stdout.splitlines()]
        assert int(lines[0][0]) == row and float(lines[0][1]) == 1 and len(lines) == count
        check_hits(lines, nearest(x[row], x if array == "emb" else x[:3]))


@pytest.mark.timeout(600)
def test_example_tells_why_a_search_is_refused(vectors, example):
    m, x = vectors
    done = example(m.path, "emb", len(x))
    assert done.returncode != 0 and done.stdout == ""
    assert done.stderr.startswith("ERR ERANGE ") and str(len(x)) in done.stderr, done.stderr
    for words in (("emb",), (m.path, "emb"), (m.path, "emb", 1, 2), (m.path, "none", 1)):
        done = example(*words)
        assert done.returncode != 0 and done.stdout == "" and ("usage:" in done.stderr or "none" in done.stderr), done
    assert example(m.path, "emb", 0).stdout.startswith("0 1")


def test_python_example_sends_vectors(vectors, tmp_path):
    m, x = vectors
    q = np.random.default_rng(32).standard_normal((3, 24)).astype("f4")
    argv = [*EXAMPLES["py"], str(ROOT / "contrib" / "examples" / "search.py"), str(m.path), "emb", str(tmp_path / "q.npy")]
    np.save(tmp_path / "q.npy", q[0])
    out = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout
    check_hits([line.split() for line in out.splitlines()], nearest(q[0], x))
    np.save(tmp_path / "q.npy", q)
    out = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout
    lines = [line.split() for line in out.splitlines()]
    assert [int(line[0]) for line in lines] == [0] * 5 + [1] * 5 + [2] * 5
    for i in range(3):
        check_hits([line[1:] for line in lines[5 * i:5 * i + 5]], nearest(q[i], x))
    np.save(tmp_path / "q.npy", q.astype("f8"))
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and done.stdout == "" and done.stderr.startswith("ERR EINVAL ") and "float64" in done.stderr


# --- the tour: what every language does to an array --------------------------------------------------------------------

EXAMPLE_DIRECTORY = ROOT / "contrib" / "examples"


def toured():
    """What the tour prints, and the arrays that it leaves."""
    i = np.arange(8, dtype="f4")
    x = np.column_stack([i, i * i, np.ones_like(i)])
    told = [f"saved {len(x[:6])} 3", f"sum {x[:6].sum():g}", f"appended {len(x)} 3"]
    x = x[1:-1]
    distances = ((x - x[0]) ** 2).sum(axis=1)
    told += [f"dropped {len(x)} 3", *(f"near {row} {distances[row]:g}" for row in np.argsort(distances, kind="stable")[:2])]
    x[0, 2] = 100
    told += ["wrote 100", f"kept {len(x)} 3", f"tour {len(x[2:])} 3"]
    return told, {"kept": x, "tour": x[2:]}


def check_tour(done, load):
    told, arrays = toured()
    assert (done.returncode, done.stderr, done.stdout.splitlines()) == (0, "", told), done
    for name, want in arrays.items():
        same(load(name), want)


def run_example(argv, cwd, **environment):
    return subprocess.run([*map(str, argv)], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env={**go_environment(cwd), **environment})


# Go's library is compiled the first time.
@pytest.mark.timeout(600)
@pytest.mark.parametrize("language", EXAMPLES)
def test_tour_of_a_mount(tmp_path, mount, language):
    command = EXAMPLES[language]
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    argv = [*command, EXAMPLE_DIRECTORY / f"tour.{language}"]
    done = run_example(argv, tmp_path)
    assert done.returncode != 0 and done.stdout == "" and done.stderr.startswith("usage: "), done
    store = tmp_path / "s.npk"
    with mount(store, "create", ro=False) as m:
        for _ in range(2):      # the second one saves over what the first one left
            check_tour(run_example([*argv, m.path], tmp_path), m.load)
            assert os.listdir(m.path / ".numpack" / "batch") == []
    with mount(store) as m:
        done = run_example([*argv, m.path], tmp_path)
        assert done.returncode != 0 and done.stdout == "" and "read-only" in done.stderr.lower(), done
        check_tour(subprocess.CompletedProcess([], 0, "\n".join(toured()[0]), ""), m.load)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """`make install` of this build, and the environment in which pkg-config finds it."""
    prefix = tmp_path_factory.mktemp("install")
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "CFLAGS", "LDFLAGS", "DESTDIR")}
    done = subprocess.run(["make", "--no-print-directory", f"MODE={MODE}", f"B={BUILD}", f"PREFIX={prefix}", "install"], cwd=ROOT, env=env,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    return {"PKG_CONFIG_PATH": f"{prefix}/lib/pkgconfig", "LD_LIBRARY_PATH": f"{prefix}/lib"}


def read_with_npk(store):
    """load(name): an array of a store as npk gives it."""
    def load(name):
        out = subprocess.run([BUILD / "npk", "get", store, name], check=True, stdout=subprocess.PIPE, timeout=PATIENCE).stdout
        return np.load(io.BytesIO(out))

    return load


def check_tour_of_a_store(program, tmp_path, environment):
    store = tmp_path / "s.npk"
    for _ in range(2):
        check_tour(run_example([program, store], tmp_path, **environment), read_with_npk(store))
    (tmp_path / "file").touch()
    for words in ((), (tmp_path / "file",), (tmp_path / "nobody" / "s.npk",)):
        done = run_example([program, *words], tmp_path, **environment)
        assert done.returncode != 0 and done.stdout == "" and done.stderr.count("\n") == 1, done
        assert done.stderr.startswith(str(words[0]) if words else "usage: "), done


def test_tour_of_a_store_in_c(installed, tmp_path):
    flags = run_example(["pkg-config", "--cflags", "--libs", "libnumpack"], tmp_path, **installed).stdout.split()
    assert "-lnumpack" in flags
    sanitizer = {"asan": ["-fsanitize=address,undefined"], "tsan": ["-fsanitize=thread"]}.get(MODE, [])
    done = run_example(["cc", *sanitizer, "-Wall", "-Wextra", "-Werror", "-o", tmp_path / "tour", EXAMPLE_DIRECTORY / "tour.c", *flags],
                       tmp_path, **installed)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    check_tour_of_a_store(tmp_path / "tour", tmp_path, installed)


# Its packages are fetched and compiled the first time.
@pytest.mark.timeout(600)
def test_rust(installed, tmp_path):
    if not shutil.which("cargo"):
        pytest.skip("cargo is not installed")
    if SANITIZED:
        pytest.skip("a Rust program cannot load a library with a sanitizer in it")
    # Always the same place, so that what was compiled stays good; the list of what was fetched stays there, too.
    crate = ROOT / "build" / "cargo" / "numpackfs"
    shutil.copytree(ROOT / "contrib" / "rust", crate, dirs_exist_ok=True, ignore=shutil.ignore_patterns("target", "Cargo.lock"))
    env = {**os.environ, **installed, "CARGO_TARGET_DIR": str(ROOT / "build" / "cargo" / "target")}
    fetched(["cargo", "build", "--examples"], crate, env)
    programs = ROOT / "build" / "cargo" / "target" / "debug" / "examples"
    check_tour_of_a_store(programs / "tour", tmp_path, installed)
    (tmp_path / "documented").mkdir()
    done = run_example([programs / "documented", tmp_path / "documented"], tmp_path, **installed)
    assert (done.returncode, done.stdout, done.stderr) == (0, "as documented\n", ""), done
    for name in ("basic.npk", "operations.npk", "types.npk", "concurrent.npk"):
        subprocess.run([BUILD / "npk", "verify", tmp_path / "documented" / name], check=True, stdout=subprocess.PIPE, timeout=PATIENCE)
