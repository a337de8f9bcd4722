"""What the README shows is what happens: its console session is replayed and its output compared, its Python runs."""

import os
import re
import subprocess
import sys

import pytest

from harness import BUILD, ROOT, Mounter, clean_environment, copy_golden, require_fuse

README = (ROOT / "README.md").read_text()


def blocks(language):
    found = re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert found, f"the README has no {language} block"
    return found


def session(block):
    """[(command, output)] of a console block."""
    steps = []
    for line in block.splitlines():
        if line.startswith("$ "):
            steps.append((line[2:], []))
        else:
            steps[-1][1].append(line)
    return steps


@pytest.fixture
def clone(tmp_path):
    """A directory in which the README's relative paths lead to a copy of the store, and `python3` has numpy."""
    require_fuse()
    (tmp_path / "tests" / "golden").mkdir(parents=True)
    copy_golden("digits.npk", tmp_path / "tests" / "golden")
    (tmp_path / "bin").mkdir()
    # No symbolic link: a virtual environment is found through the path by which its interpreter was started.
    (tmp_path / "bin" / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tmp_path / "bin" / "python3").chmod(0o755)
    return tmp_path


def test_the_console_session(clone):
    steps = [s for b in blocks("console") for s in session(b)]
    assert steps[0][0].startswith("mkdir mnt && numpackfs")
    script = "".join(f"{command} || exit 1\necho '-- end --'\n" for command, _ in steps)
    env = {**clean_environment(clone), "PATH": f"{clone}/bin:{BUILD}:{os.environ['PATH']}"}
    try:
        done = subprocess.run(["bash", "-c", script], cwd=clone, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        outputs = done.stdout.split("-- end --\n")
        assert done.returncode == 0, done.stdout
        assert [(c, o) for (c, _), o in zip(steps, outputs)] == [(c, "".join(f"{line}\n" for line in o)) for c, o in steps]
        assert (clone / "five.npy").stat().st_size == 128 + 5 * 8
    finally:
        subprocess.run(["fusermount3", "-u", "-z", "-q", str(clone / "mnt")], check=False)


def test_the_python_blocks(clone, watchdog):
    (clone / "mnt").mkdir()
    with Mounter(clone / "mounts", watchdog)(clone / "tests" / "golden" / "digits.npk", at=clone / "mnt", ro=False):
        for block in blocks("python"):
            done = subprocess.run([sys.executable, "-c", block], cwd=clone, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            assert done.returncode == 0, f"{block}\n{done.stdout}"


def test_every_make_target_exists():
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", README))
    told = subprocess.run(["make", "help"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
                          env={k: v for k, v in os.environ.items() if not k.startswith("MAKE")}).stdout
    targets = set(re.findall(r"make ([a-z-]+)", told)) | {"help"}
    assert named and named <= targets, named - targets


def test_every_file_it_names_exists():
    for paths in re.findall(r"`((?:engine|fs|tools|tests|contrib)/[\w./-]+)`|\b(tests/golden/[\w.]+)|\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / "".join(paths)).exists(), paths
