"""The programs in the documentation run, against a cluster at another address than the one they name."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lockring.testing import LocalCluster
from tests.processes import PATIENCE_S

pytestmark = [pytest.mark.cluster]

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ADDRESS = re.compile(r'"127\.0\.0\.1:95\d\d(,127\.0\.0\.1:95\d\d)*"')
PROGRAMS = [
    pytest.param(code, id=f"{page.name}-{number}")
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for number, code in enumerate(FENCE.findall(page.read_text(encoding="utf-8")), start=1)
    if ADDRESS.search(code)
]


@pytest.mark.parametrize("code", PROGRAMS)
def test_a_program_that_is_shown_runs(code: str, steady: LocalCluster, tmp_path: Path) -> None:
    program = ADDRESS.sub(repr(steady.servers), code)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout or "print(" not in code, "it prints nothing, though it says so"
