"""The words for a failure come from the system only where its number is the system's."""

from __future__ import annotations

import errno
import socket
import ssl
from pathlib import Path

import pytest

from lockring.system_errors import reason_of


def test_a_number_of_the_system_gives_the_systems_words() -> None:
    assert reason_of(OSError(errno.ENOENT, "a library's own words")) == "no such file or directory"


def test_a_number_of_a_library_gives_the_librarys_words(tmp_path: Path) -> None:
    garbage = tmp_path / "ca.crt"
    garbage.write_text("garbage")
    with pytest.raises(ssl.SSLError) as refused:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(garbage)
    assert "certificate" in reason_of(refused.value)
    assert "unknown error" not in reason_of(refused.value)


def test_a_name_that_cannot_be_resolved_gives_the_resolvers_words() -> None:
    assert reason_of(socket.gaierror(-2, "Name or service not known")) == "name or service not known"


def test_an_error_without_a_number_gives_its_own_words() -> None:
    assert reason_of(OSError("Gone")) == "gone"
    assert reason_of(ValueError()) == "ValueError"
