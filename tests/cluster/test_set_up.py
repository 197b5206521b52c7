"""The set-up that docs/security.md shows, word for word out of the page, in a shell."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from lockring.server.lifecycle import PARENT_VARIABLE
from lockring.server.local.children import child_environment, is_free
from tests.processes import PATIENCE_S, eventually, session_of
from tests.unit.house.rules import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
PORTS = (9500, 9501, 9601)
"""The ports that the page names, or that follow from those."""

NAMESPACE = ("unshare", "--net")
"""Has ports of its own, so that other servers of this machine do no harm."""


def script() -> str:
    (found,) = re.findall(r"^```sh setup\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def commands() -> list[str]:
    """The commands of the page; one that reads lines up to a mark is one command."""
    return re.sub(r"<<'(\w+)'\n.*?^\1$", "<<", script(), flags=re.MULTILINE | re.DOTALL).splitlines()


def place_to_run() -> tuple[str, ...]:
    """The start of the command line that runs a shell where the page's ports are free."""
    within = (*NAMESPACE, "sh", "-c", 'ip link set lo up && exec "$0" "$@"')
    has_tools = shutil.which("unshare") is not None and shutil.which("ip") is not None
    if has_tools and subprocess.run([*within, "true"], capture_output=True, check=False).returncode == 0:
        return within
    eventually(lambda: all(is_free("127.0.0.1", port) for port in PORTS), lambda: "the ports of the page")
    return ()


def test_the_page_has_ten_commands() -> None:
    assert len(commands()) == 10


def test_the_commands_of_the_page_set_up_a_server_that_lets_in_its_identities_alone(tmp_path: Path) -> None:
    environ = child_environment()
    del environ[PARENT_VARIABLE]  # the server's parent is the shell
    environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
    # The directory that a server would choose by itself is another one, which the page must not rely on.
    environ["STATE_DIRECTORY"] = str(tmp_path / "elsewhere")
    here = tmp_path / "empty"
    here.mkdir()
    refused = (
        "lockring ls --config lockring.toml && exit 1; lockring ls --server 127.0.0.1:9501 && exit 1; exit 0"
    )
    with (tmp_path / "out").open("w") as out_file, (tmp_path / "err").open("w") as err_file:
        shell = subprocess.Popen(
            [*place_to_run(), "sh", "-e", "-c", f"{script()}{refused}"],
            cwd=here,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=out_file,
            stderr=err_file,
            start_new_session=True,
        )
    try:
        code = shell.wait(PATIENCE_S)
        err = (tmp_path / "err").read_text()
        assert code == 0, err
    finally:
        for pid in session_of(shell.pid):
            os.kill(pid, signal.SIGKILL)
    out = (tmp_path / "out").read_text()
    assert "\nlocked\n" in out
    assert "rights are enforcing" in out
    assert "lets in no client without credentials" in err
    assert "this port demands TLS" in err
    assert not (tmp_path / "elsewhere").exists()
    lines = [json.loads(line) for line in (here / "audit.log").read_text().splitlines()]
    acts = {(line["act"], line.get("who"), line.get("how"), line["outcome"]) for line in lines}
    assert ("acquire", "web-1", "token", "ok") in acts
    assert ("connect", "operator", "certificate", "ok") in acts
    assert any(act == "denied" and outcome == "refused" for act, _, _, outcome in acts)
