"""The page about security says what the code does: its examples are valid, and its tables are complete."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import get_args

import pytest
from google.rpc import code_pb2

from lockring import exits
from lockring.core.access import GRPC_REQUIREMENTS, HTTP_REQUIREMENTS, REQUIREMENTS, Limits, Requirement, Verb
from lockring.errors import Denied, LockringError, Overloaded, Unauthenticated
from lockring.grpc_api.status import STATUS_OF
from lockring.protocol.identities import Claim, Identity
from lockring.security.acl_file import parse_acl
from lockring.security.audit import Act, AuditRecord, Outcome
from tests.unit.house.rules import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```toml acl\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_the_acl_file_that_is_shown_is_valid_and_means_what_the_page_says() -> None:
    (text,) = EXAMPLES
    content = parse_acl(text.encode(), "acl.toml", wall_s=0)
    assert content.remarks == ()
    worker = Identity("certificate", "w", (Claim("san", "spiffe://prod/ns/jobs/sa/worker"),))
    permissions = content.policy.permissions_of(worker)
    assert permissions.allows(Verb.ACQUIRE, "jobs/7")
    assert not permissions.allows(Verb.READ, "secret/x")


def test_the_page_has_every_right_limit_act_and_outcome() -> None:
    rights = set(re.findall(r"^\| `(\w+)` \|", section("The ACL file"), re.MULTILINE))
    assert rights == {verb.word for verb in Verb}
    assert set(re.findall(r"^\| `(\w+)` \|", section("Limits"), re.MULTILINE)) == set(Limits._fields)
    log = section("The audit log")
    assert {each for each in get_args(Act) if f"`{each}`" not in log} == set()
    assert {each for each in get_args(Outcome) if f"`{each}`" not in log} == set()


def test_the_line_of_the_audit_log_that_is_shown_has_the_fields_of_a_record() -> None:
    line = re.search(r"^\{.*\}$", section("The audit log"), re.MULTILINE)
    assert line is not None
    shown = re.findall(r'"([\w]+)": ', line[0])
    fields = ["from" if each == "origin" else each for each in AuditRecord.__struct_fields__]
    assert [each for each in fields if each in shown] == shown


@pytest.mark.parametrize("kind", [Unauthenticated, Denied, Overloaded])
def test_the_errors_have_the_codes_that_the_page_names(kind: type[LockringError]) -> None:
    code = exits.exit_code_of(kind(""))
    status = code_pb2.Code.Name(STATUS_OF[kind.code])
    assert f"| `{kind.__name__}` | `{kind.code}` | {code} | `{status}` |" in section("Errors")


def rows_of(table: Mapping[str, Requirement]) -> list[str]:
    """The rows that the page has about a table of requirements."""
    return [
        f"| `{name}` | {condition.value} | {'' if verb is None else f'`{verb.word}`'} |".replace(
            "|  |", "| |"
        )
        for name, (condition, verb) in table.items()
    ]


def test_the_tables_of_required_rights_are_those_of_the_code() -> None:
    messages = {kind.__name__: row for kind, row in REQUIREMENTS.items()}
    expected = rows_of(messages) + rows_of(GRPC_REQUIREMENTS) + rows_of(HTTP_REQUIREMENTS)
    shown = re.findall(r"^\| `.*$", section("What each request needs"), re.MULTILINE)
    assert shown == expected
