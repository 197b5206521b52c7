"""`lockring clean-folders` as a real process: the example of its page, wrong input, signals, a full inotify table."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from lockring.testing import LocalCluster
from tests.processes import address, eventually
from tests.s3_server import CREDENTIALS
from tests.unit.house.rules import ROOT

pytestmark = pytest.mark.cluster

COMMAND = [sys.executable, "-m", "lockring", "clean-folders"]


def run(
    *words: str, before: tuple[str, ...] = (), environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, *COMMAND, *words],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | (environ or {}),
    )


def test_the_example_of_the_page_does_what_the_page_says(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "cleaner.md").read_text()
    found = re.search(r"^```sh\n(mkdir.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert found is not None
    bin_path = Path(sys.executable).parent
    done = subprocess.run(
        ["sh", "-e", "-c", found.group(1)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PATH": f"{bin_path}:{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stderr
    for folder in ("uploads/alice/2025/01", "uploads/alice/2025", "uploads/bob/old"):
        assert f"{folder}\n" in done.stdout
        assert not (tmp_path / folder).exists()
    assert (tmp_path / "uploads/alice/notes.txt").exists()
    assert (tmp_path / "uploads/bob").exists()


def test_a_dry_run_removes_nothing_and_needs_no_cluster(tmp_path: Path) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    done = run(str(tmp_path), "--dry-run", "--json", "--server", address())
    (report,) = json.loads(done.stdout)["roots"]
    assert (done.returncode, report["seen"], report["would_delete"]) == (0, 3, 2)
    assert report["kept"] == {"child of the root": 1}
    assert (tmp_path / "a/b/c").is_dir()


def test_patterns_and_policies_keep_folders(tmp_path: Path) -> None:
    for folder in ("a/keep/x", "a/go", "free/x", "a/other/y"):
        (tmp_path / folder).mkdir(parents=True)
    done = run(
        str(tmp_path), "--alone", "--once", "--delay", "0", "--children", "--json",
        "--keep", "keep/", "--keep", "/a/other", "--allow-empty", "fr*",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(each.name for each in (tmp_path / "a").iterdir()) == ["keep", "other"]
    assert (tmp_path / "free/x").is_dir()


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["/no/such/folder", "--alone"], 66, "there is no folder /no/such/folder"),
        ([], 64, "which folders?"),
        (["ftp://x/y", "--alone"], 64, "only folders and s3://"),
        (["", "--alone"], 64, "must not be empty"),
        (["/", "--delay", "-1"], 64, "--delay"),
        (["/", "--alone", "--group", "g"], 64, "contradict"),
    ],
)
def test_wrong_input_is_one_clear_line(words: list[str], code: int, text: str) -> None:
    done = run(*words)
    assert done.returncode == code
    assert text in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_bucket_and_a_cluster_that_do_not_answer_are_reported(tmp_path: Path) -> None:
    done = run("s3://bucket", "--alone", "--endpoint-url", f"http://{address()}", environ=CREDENTIALS)
    assert (done.returncode, "cannot be reached" in done.stderr) == (69, True), done.stderr
    done = run(str(tmp_path), "--server", address(), "--connect-timeout", "0.3")
    assert done.returncode == 69, done.stderr


@pytest.mark.skipif(shutil.which("setpriv") is None or os.getuid() != 0, reason="needs root and setpriv")
def test_an_unreadable_root_is_reported(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    os.chown(closed, 1, 1)
    without = "-dac_override,-dac_read_search"
    done = run(
        str(closed), "--alone", before=("setpriv", f"--bounding-set={without}", f"--inh-caps={without}")
    )
    assert (done.returncode, "no permission" in done.stderr) == (77, True), done.stderr


def test_without_the_watchdog_package_scans_do_the_work_and_that_is_reported(tmp_path: Path) -> None:
    (tmp_path / "root/a/b").mkdir(parents=True)
    (tmp_path / "watchdog.py").write_text("raise ImportError('no watchdog')")
    log = tmp_path / "log"
    command = [*COMMAND, str(tmp_path / "root"), "--alone", "--delay", "0"]
    environ = os.environ | {"PYTHONPATH": str(tmp_path)}
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out, env=environ) as process:
        try:
            eventually(lambda: not (tmp_path / "root/a/b").exists())
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()
    assert "events need watchdog" in log.read_text()
    assert "lockring[cleaner]" in log.read_text()
    assert "found by scans alone" in log.read_text()


def test_a_root_that_is_made_again_is_cleaned_and_watched_again(tmp_path: Path) -> None:
    root, away = tmp_path / "root", tmp_path / "away"
    (root / "a/b").mkdir(parents=True)
    command = [*COMMAND, str(root), "--alone", "--delay", "0", "--scan-interval", "0.1"]
    log = tmp_path / "log"
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            eventually(lambda: not (root / "a/b").exists())
            root.rename(away)
            (tmp_path / "new/a/c").mkdir(parents=True)
            (tmp_path / "new/a/d").mkdir()
            (tmp_path / "new/a/d/file").touch()
            (tmp_path / "new").rename(root)
            (away / "a/theirs").mkdir()
            eventually(lambda: not (root / "a/c").exists())
            (root / "a/d/file").unlink()
            eventually(lambda: not (root / "a/d").exists())
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()
    assert (away / "a/theirs").exists(), "what was the root is none any more"
    assert "is another folder now" in log.read_text()


@pytest.mark.parametrize("missing", ["pathspec", "boto3"])
def test_what_is_not_installed_is_named_with_its_extra(missing: str, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / f"{missing}.py").write_text(f"raise ImportError('no {missing}')")
    root = "s3://bucket" if missing == "boto3" else str(tmp_path / "root")
    done = run(root, "--alone", "--keep", "x", environ={"PYTHONPATH": str(tmp_path)})
    extra = "s3" if missing == "boto3" else "cleaner"
    assert (done.returncode, f"lockring[{extra}]" in done.stderr) == (78, True), done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_its_report(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    command = [*COMMAND, str(tmp_path), "--alone", "--delay", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            eventually(lambda: not (tmp_path / "a/b").exists())
            process.send_signal(number)
            output, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0
    assert json.loads(output)["roots"][0]["deleted"] == 1


def _may_limit_watches() -> bool:
    if shutil.which("unshare") is None:
        return False
    script = "echo 2 > /proc/sys/user/max_inotify_watches"
    return subprocess.run(["unshare", "-Ur", "sh", "-c", script], capture_output=True).returncode == 0


@pytest.mark.skipif(not _may_limit_watches(), reason="needs user namespaces")
def test_a_full_inotify_table_is_reported_and_scans_do_the_work(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"root/a/{number}").mkdir(parents=True)
    (tmp_path / "root/a/0/file").touch()
    words = " ".join([*COMMAND, str(tmp_path / "root"), "--alone", "--delay", "0", "--scan-interval", "0.1"])
    script = f"echo 2 > /proc/sys/user/max_inotify_watches; exec {words}"
    log = tmp_path / "log"
    with (
        log.open("w") as out,
        subprocess.Popen(
            ["unshare", "-Ur", "sh", "-c", script], stdout=subprocess.DEVNULL, stderr=out
        ) as process,
    ):
        try:
            eventually(lambda: not (tmp_path / "root/a/1").exists())
            (tmp_path / "root/a/0/file").unlink()
            eventually(lambda: not (tmp_path / "root/a/0").exists())
            process.terminate()
            process.wait(30)
        finally:
            process.kill()
    assert "inotify table is full" in log.read_text()
    assert "scans alone" in log.read_text()


def test_a_worker_in_a_group_removes_what_is_its_own(steady: LocalCluster, tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"a/{number}").mkdir(parents=True)
    command = [
        *COMMAND,
        str(tmp_path),
        "--delay",
        "0",
        "--scan-interval",
        "0.5",
        "--server",
        steady.servers,
        "--json",
        "-v",
    ]
    workers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    try:
        eventually(lambda: not list((tmp_path / "a").iterdir()))
        for each in workers:
            each.terminate()
        outputs = [each.communicate(timeout=30) for each in workers]
    finally:
        for each in workers:
            each.kill()
            each.wait()
    events = [json.loads(line) for _, err in outputs for line in err.splitlines()]
    removed = [each["folder"] for each in events if each["event"] == "deleted"]
    assert sorted(removed) == sorted({f"a/{number}" for number in range(20)})
    assert all(each["fence"] > 0 for each in events)
