"""The committed stubs are those of the .proto files, which document everything."""

from __future__ import annotations

import importlib.util
import re
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

from tests.unit.house.rules import ROOT

PROTO = ROOT / "proto" / "lockring" / "v1" / "lockring.proto"
ETCD_PROTO = ROOT / "proto" / "lockring" / "store" / "etcd" / "etcd.proto"


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "proto" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("function", "target"), [("generate", "TARGET"), ("generate_etcd", "ETCD_TARGET")])
def test_the_stubs_are_what_make_proto_would_write(tmp_path: Path, function: str, target: str) -> None:
    module = generator()
    getattr(module, function)(tmp_path)
    fresh = {path.name: path.read_text() for path in tmp_path.iterdir()}
    committed = {path.name: path.read_text() for path in getattr(module, target).glob("*_pb2*")}
    assert sorted(fresh) == sorted(committed)
    stale = [name for name, text in fresh.items() if committed[name] != text]
    assert stale == [], "run `make proto`"


def undocumented(text: str) -> list[str]:
    """Return the fields, values and calls in a .proto file that have no comment above them."""
    lines = [line.strip() for line in text.splitlines()]
    declares = re.compile(r"^(rpc \w+|(optional |repeated )?[\w.]+ \w+ = \d+;|\w+ = \d+;)")
    return [line for before, line in pairwise(lines) if declares.match(line) and not before.startswith("//")]


@pytest.mark.parametrize("proto", [PROTO, ETCD_PROTO], ids=lambda path: path.stem)
def test_every_call_and_every_field_has_its_meaning_beside_it(proto: Path) -> None:
    assert undocumented(proto.read_text()) == []


def test_the_messages_for_etcd_bear_a_name_of_our_own() -> None:
    assert re.findall(r"^package (.+);", ETCD_PROTO.read_text(), re.MULTILINE) == ["lockring.store.etcd"]


def test_a_field_without_a_comment_would_be_found() -> None:
    text = "message M {\n  // Fine.\n  string a = 1;\n  repeated int64 b = 2;\n  VALUE = 0;\n  rpc Call(M) returns (M);\n}"
    assert len(undocumented(text)) == 3


def test_every_duration_says_its_unit() -> None:
    fields = re.findall(r"^\s+(?:optional )?int64 (\w+) = ", PROTO.read_text(), re.MULTILINE)
    assert fields
    assert [name for name in fields if not name.endswith("_ms")] == []
