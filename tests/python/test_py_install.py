"""pip installs the package from the source tree, library inside, and the README's program runs with it."""

import os
import pathlib
import re
import subprocess
import sys
import sysconfig

from harness import ROOT


def test_pip_installs_it_and_the_readme_runs(tmp_path):
    env = {k: v for k, v in os.environ.items() if k not in ("LIBNUMPACK", "PYTHONPATH", "MAKEFLAGS", "PYTHONDONTWRITEBYTECODE")}
    site = tmp_path / "site"
    done = subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps",
                           "--no-build-isolation", "--target", str(site), str(ROOT / "contrib" / "python")],
                          env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (site / "numpackfs" / "libnumpack.so.0").stat().st_size > 100_000
    wheel = next(site.glob("numpackfs-*.dist-info/WHEEL")).read_text()
    assert "Tag: py3-none-linux" in wheel and sysconfig.get_platform().split("-")[-1] in wheel
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "contrib/python/README.md").read_text(), re.DOTALL)
    program = "".join(blocks) + "import numpackfs, numpackfs.io\nprint(numpackfs.__file__)\n"
    done = subprocess.run([sys.executable, "-c", program], env={**env, "PYTHONPATH": str(site)}, cwd=tmp_path, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    assert pathlib.Path(done.stdout.strip()).is_relative_to(site)


def test_the_versions_agree():
    from numpackfs import __version__, get_backend_info

    assert __version__ == get_backend_info()["library"]
