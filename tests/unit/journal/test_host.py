"""The machine and its boot: an id that other machines may have is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockring.clock import boot_id
from lockring.journal import host
from lockring.journal.host import this_host

ID = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def machine_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with an id that is not a container."""
    path = tmp_path / "machine-id"
    path.write_text(f"{ID}\n")
    monkeypatch.setattr(host, "_MACHINE_ID", path)
    monkeypatch.setattr(host, "_SIGNS_OF_A_CONTAINER", (str(tmp_path / "sign"),))
    for variable in host._VARIABLES_OF_A_CONTAINER:
        monkeypatch.delenv(variable, raising=False)
    return path


def test_a_machine_has_the_id_of_its_file_and_a_boot(machine_id: Path) -> None:
    del machine_id
    assert this_host() == (boot_id(), ID)


@pytest.mark.parametrize("content", ["", "uninitialized\n", "0123"])
def test_an_image_before_its_first_boot_has_no_id(machine_id: Path, content: str) -> None:
    machine_id.write_text(content)
    assert this_host().machine == ""


def test_a_machine_without_the_file_has_no_id(machine_id: Path) -> None:
    machine_id.unlink()
    assert this_host().machine == ""


@pytest.mark.parametrize("variable", ["container", "KUBERNETES_SERVICE_HOST"])
def test_a_container_has_no_id_though_its_image_brings_one(
    machine_id: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    del machine_id
    monkeypatch.setenv(variable, "docker")
    assert this_host().machine == ""


def test_a_container_is_known_by_the_file_that_its_engine_puts_there(machine_id: Path) -> None:
    machine_id.with_name("sign").write_text("")
    assert this_host().machine == ""
