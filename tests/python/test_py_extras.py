"""What other libraries the package names, and what it says without them."""

import re
import tomllib

from harness import ROOT


def test_without_dask_it_says_what_to_install(python):
    out = python("import sys, numpackfs.io\nsys.modules['dask'] = None\ntry:\n import numpackfs.dask\n"
                 "except numpackfs.io.DependencyError as e: print(e)\n")
    assert "pip install 'numpackfs[dask]'" in out


def test_every_extra_that_is_named_exists():
    package = ROOT / "contrib" / "python"
    extras = set(tomllib.loads((package / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    named = set()
    for path in [*package.rglob("*.py"), *package.glob("*.md"), ROOT / "README.md", *ROOT.glob("tools/*.[c1]")]:
        text = path.read_text()
        for found in re.findall(r"(?:numpackfs|contrib/python)\[([\w,]+)\]", text) + re.findall(r"need\(\"[\w.]+\", \"(\w+)\"\)", text):
            named |= set(found.split(","))
    assert {"dask", "arrow", "hdf5", "torch"} <= named
    assert named <= extras, named - extras
