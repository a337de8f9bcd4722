"""What contrib/ ships beside programs: the Grafana dashboard and the exporter know the mount's metrics, and the Debian package and
the container have what `make install` installs."""

import fnmatch
import json
import os
import re
import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from harness import BUILD, MODE, ROOT, copy_golden

CONTRIB = ROOT / "contrib"
EXPORTER = CONTRIB / "grafana" / "numpackfs-textfile"
DASHBOARD = json.loads((CONTRIB / "grafana" / "numpackfs.json").read_text())
VERSION = re.search(r'#define NPK_VERSION "(.*)"', (ROOT / "engine" / "numpack.h").read_text())[1]


def families(text):
    return {f.name: f for f in text_string_to_metric_families(text)}


def samples(text):
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families(text).values() for s in f.samples}


def export(*words):
    return subprocess.run([str(EXPORTER), *map(str, words)], capture_output=True, text=True)


@pytest.fixture
def digits(tmp_path, mount):
    with mount(copy_golden("digits.npk", tmp_path)) as m:
        yield m


def test_each_metric_of_the_dashboard_exists_and_each_that_exists_is_shown(digits, tmp_path):
    assert export(tmp_path, digits.path).returncode == 0
    exported = next(tmp_path.glob("*.prom")).read_text()
    names = {name for name, _ in samples(exported)}
    labels = {name: {label for n, pairs in samples(exported) if n == name for label, _ in pairs} for name in names}
    queries = [t["expr"] for p in DASHBOARD["panels"] for t in p["targets"]]
    queries += [v["definition"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]
    used = {name for q in queries for name in re.findall(r"\bnumpackfs_\w+", q)}
    assert used == names, used ^ names
    for q in queries:
        for name, filters in re.findall(r"\b(numpackfs_\w+)\{([^}]*)\}", q):
            assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", filters)) <= labels[name], q
        for by in re.findall(r"\bby \((\w+)\)", q):
            assert all(by in labels[name] for name in re.findall(r"\bnumpackfs_\w+", q)), q
        for counted in re.findall(r"rate\((numpackfs_\w+)", q):
            assert counted.endswith(("_total", "_bucket", "_sum", "_count")), q
        assert q.count("(") == q.count(")") and q.count("{") == q.count("}"), q


def test_the_panels_of_the_dashboard_fit():
    panels = DASHBOARD["panels"]
    assert len({p["id"] for p in panels}) == len({p["title"] for p in panels}) == len(panels) > 5
    variables = {v["name"] for v in DASHBOARD["templating"]["list"]} | {"__rate_interval"}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(panels))) <= variables
    taken = set()
    for p in panels:
        g = p["gridPos"]
        cells = {(x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])}
        assert g["x"] + g["w"] <= 24 and not cells & taken, p["title"]
        taken |= cells


def test_the_exporter_adds_the_mountpoint_and_nothing_else(digits, tmp_path, mount):
    out = tmp_path / "out"
    out.mkdir()
    odd = tmp_path / 'a "b" \\c d'
    odd.mkdir()
    with mount(tmp_path / "digits.npk", at=odd):
        done = export(out, digits.path, odd)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    texts = [f.read_text() for f in out.glob("numpackfs_*.prom")]
    assert len(texts) == len(list(out.iterdir())) == 2
    own = (digits.control() / "metrics").read_text()
    told = set()
    for text in texts:
        assert {name: (f.type, f.documentation) for name, f in families(text).items()} == \
            {name: (f.type, f.documentation) for name, f in families(own).items()}
        labels = {dict(pairs)["mountpoint"] for _, pairs in samples(text)}
        assert len(labels) == 1
        told |= labels
        assert {(name, tuple(p for p in pairs if p[0] != "mountpoint")) for name, pairs in samples(text)} == set(samples(own))
    assert told == {str(digits.path), str(odd)}
    done = export(out, odd, digits.path)      # no longer mounted
    assert done.returncode == 1 and f"{odd}: no metrics" in done.stderr
    assert [f.read_text().count(str(digits.path)) > 10 for f in out.iterdir()] == [True]
    assert export(out).returncode == 2


def make(target, top, **settings):
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "CFLAGS", "LDFLAGS")}
    words = [f"{k}={v}" for k, v in {"MODE": MODE, "B": BUILD, "DESTDIR": top, "PREFIX": "/usr", "LIBDIR": "lib/any", **settings}.items()]
    done = subprocess.run(["make", "--no-print-directory", *words, target], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    return sorted(str(p.relative_to(top)) for p in top.rglob("*") if not p.is_dir() or p.is_symlink())


@pytest.fixture(scope="module")
def installed_top(tmp_path_factory):
    return tmp_path_factory.mktemp("installed")


@pytest.fixture(scope="module")
def installed(installed_top):
    """What `make install` puts below /usr of an empty directory."""
    return make("install", installed_top)


def settings_of_unit(text):
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


def test_the_unit_is_where_systemd_looks_and_runs_what_was_installed(installed, installed_top):
    """systemd looks below /usr/lib and /usr/local/lib, whatever the libraries' directory, and for programs not below other prefixes."""
    assert [p for p in installed if "systemd" in p] == ["usr/lib/systemd/system/numpackfs@.service"]
    path = installed_top / "usr/lib/systemd/system/numpackfs@.service"
    unit, source = path.read_text(), (CONTRIB / "systemd" / "numpackfs@.service").read_text()
    assert path.stat().st_mode & 0o777 == 0o644
    run = settings_of_unit(unit)["ExecStart"].split()[0]
    assert (installed_top / run.lstrip("/")).samefile(installed_top / "usr/bin/numpackfs")
    assert unit.replace("ExecStart=/usr/bin/numpackfs ", "ExecStart=numpackfs ") == source
    if shutil.which("systemd-analyze"):
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", f"--root={installed_top}", "numpackfs@x.service"], capture_output=True, text=True)
        assert not re.search(r"numpackfs@\w*\.service:\d+: ", done.stderr), done.stderr    # a line that it does not understand


def test_uninstall_leaves_nothing(tmp_path):
    here = make("install", tmp_path, PREFIX="/opt/npf", LIBDIR="lib64")
    assert "opt/npf/lib/systemd/system/numpackfs@.service" in here
    unit = (tmp_path / "opt/npf/lib/systemd/system/numpackfs@.service").read_text()
    assert settings_of_unit(unit)["ExecStart"].startswith("/opt/npf/bin/numpackfs -f ")
    assert make("uninstall", tmp_path, PREFIX="/opt/npf", LIBDIR="lib64") == []


def test_the_debian_packages_have_each_installed_file_once(installed):
    lists = {p.stem: [line.split() for line in p.read_text().splitlines()] for p in (CONTRIB / "debian").glob("*.install")}
    packages = set(re.findall(r"^Package: (\S+)$", (CONTRIB / "debian" / "control").read_text(), re.MULTILINE))
    assert set(lists) == packages == {"numpackfs", "libnumpack0", "libnumpack-dev"}
    patterns = [(package, words[0]) for package, lines in lists.items() for words in lines]
    for path in installed:
        has = [package for package, p in patterns if fnmatch.fnmatch(path, p) or path.startswith(p + "/")]
        assert len(has) == 1, (path, has)
    for package, pattern in patterns:
        assert (ROOT / pattern).exists() or any(fnmatch.fnmatch(path, pattern) or path.startswith(pattern + "/") for path in installed), pattern


def test_versions_agree():
    changelog = (CONTRIB / "debian" / "changelog").read_text()
    assert re.match(r"numpackfs \((.*?)\) ", changelog)[1] == VERSION
    assert re.search(r'^version = "(.*)"$', (CONTRIB / "rust" / "Cargo.toml").read_text(), re.MULTILINE)[1] == VERSION
    header = (ROOT / "Makefile").read_text()
    assert f"SOMAJOR := {re.search('libnumpack([0-9]+)', (CONTRIB / 'debian' / 'control').read_text())[1]}\n" in header


def test_the_container_copies_what_the_build_needs(installed):
    text = (CONTRIB / "container" / "Dockerfile").read_text()
    copied = [words.split()[0] for words in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE)]
    assert copied and all((ROOT / path).exists() for path in copied)
    needed = set(re.findall(r"\b(engine|simd|fs|tools|contrib/[a-z]+)/", "".join(
        re.findall(r"^install: all.*?^uninstall:", (ROOT / "Makefile").read_text(), re.MULTILINE | re.DOTALL)))) | {"Makefile", "simd", "fs", "tools"}
    assert needed == set(copied), needed ^ set(copied)
    assert {"usr/bin/numpackfs", "usr/bin/npk"} <= set(installed)


def test_links_of_the_overview_lead_somewhere():
    text = (CONTRIB / "README.md").read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert len(links) > 5 and all((CONTRIB / link).exists() for link in links), links
    shown = {link.split("/")[0] for link in links} | set(re.findall(r"contrib/(\w+)", text))
    assert shown >= {p.name for p in CONTRIB.iterdir() if p.is_dir()}, "a directory is not described"
