"""Text of the operating system is its bytes as UTF-8, and goes back as the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockring.cli.sections import read_settings
from lockring.errors import ConfigError, InvalidRequest
from lockring.names import check_lock_name
from lockring.native import from_native, to_native, variables
from lockring.server.settings import NodeSettings
from tests.locales import environments


@given(st.binary().filter(lambda data: b"\0" not in data))
def test_any_bytes_survive_the_round_trip(data: bytes) -> None:
    text = from_native(os.fsdecode(data))
    assert text.encode("utf-8", "surrogateescape") == data
    assert os.fsencode(to_native(text)) == data


def test_only_the_variables_of_a_prefix_are_read() -> None:
    assert variables("LOCKRING_", {"LOCKRING_OWNER": "é", "PATH": "/bin"}) == {"LOCKRING_OWNER": "é"}


def test_a_name_of_bytes_that_are_no_utf_8_is_refused_with_the_first_of_them() -> None:
    with pytest.raises(InvalidRequest, match="it has the byte 0xe9, as text in another encoding"):
        check_lock_name(os.fsdecode(b"job-\xe9\xff"))


def test_letters_are_not_normalized() -> None:
    assert check_lock_name("é") != check_lock_name("e\u0301")


# Reads a server's settings from an argument, a variable and a file. Each gives a directory's name in its bytes.
PROGRAM = """
import os, sys
from lockring.cli.sections import read_settings
from lockring.native import from_native
from lockring.server.settings import CoordinatorSettings

path = from_native(sys.argv[1])
for given in ({"data_dir": path}, {}, {"config_path": from_native(sys.argv[2])}):
    sys.stdout.buffer.write(os.fsencode(read_settings(CoordinatorSettings, "coordinator", given).data_dir) + b"\\n")
    os.environ["LOCKRING_DATA_DIR"] = "" if "LOCKRING_DATA_DIR" in os.environ else sys.argv[1]
"""


def test_a_directory_is_the_same_in_all_locales(tmp_path):
    config = os.fsencode(tmp_path) + "/größe.toml".encode()
    with open(config, "w", encoding="utf-8") as file:
        file.write('[coordinator]\ndata_dir = "/data/größe"\n')
    directory = "/data/größe".encode()
    for environ in environments(tmp_path).values():
        clean = {name: value for name, value in environ.items() if not name.startswith("LOCKRING_")}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, directory, config], env=clean, capture_output=True, check=True
        )
        assert done.stdout.split() == [directory] * 3


def test_a_setting_that_is_neither_a_path_nor_utf_8_is_refused_naming_its_source() -> None:
    with pytest.raises(ConfigError, match=r"--id: .* is not valid UTF-8 text: it has the byte 0xe9"):
        read_settings(NodeSettings, "node", {"id": os.fsdecode(b"n\xe9")})
