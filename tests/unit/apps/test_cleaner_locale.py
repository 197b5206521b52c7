"""A folder has the same name, and so the same owner, for workers of all locales."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from tests.locales import environments

PROGRAM = """
import json, sys
from lockring.apps.cleaner.core.policy import Policy
from lockring.apps.cleaner.local import LocalStorage
from lockring.apps.cleaner.ownership import owner_key
from lockring.cli.clean.command import group_of

storage = LocalStorage(sys.argv[1])
storage.open()
folders = sorted(each.folder for each in storage.scan(Policy(children=True)))
print(json.dumps([group_of([storage]), {each: owner_key(each) for each in folders}]))
if sys.argv[2] == "remove":
    for each in reversed(folders):
        assert storage.remove(each) is None, each
"""


def test_workers_of_all_locales_ask_for_the_same_keys_and_remove_the_same_folders(tmp_path):
    def run(environ: dict[str, str], what: str) -> Any:
        command: list[str | bytes] = [sys.executable, "-c", PROGRAM, root, what]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    root = os.fsencode(tmp_path) + "/größe".encode()
    for name in ("é".encode(), b"caf\xe9"):
        os.makedirs(root + b"/top/" + name)
    locales = environments(tmp_path)
    group, keys = run(locales["utf-8"], "look")
    assert group.endswith("/größe")
    assert keys["top/é"] == "top/é"
    assert all(run(environ, "look") == [group, keys] for environ in locales.values())
    run(list(locales.values())[-1], "remove")
    assert os.listdir(root) == []
