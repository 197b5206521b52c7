"""The page about the command says what the command has: every flag, variable and exit code."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from lockring import exits
from lockring.cli.app import root
from lockring.cli.sections import sections
from lockring.config import settings_of
from lockring.security.credential_source import TOKEN_VARIABLE
from lockring.store.etcd.place import PASSWORD_FILE_VARIABLE, PASSWORD_VARIABLE

PAGE = Path(__file__).parents[3].joinpath("docs", "cli.md").read_text(encoding="utf-8")
COMMANDS = root.list_commands(click.Context(root))


def flags_of(name: str) -> set[str]:
    command = root.get_command(click.Context(root), name)
    assert command is not None
    commands = [command]
    if isinstance(command, click.Group):
        context = click.Context(command)
        inner = [command.get_command(context, each) for each in command.list_commands(context)]
        commands += [each for each in inner if each is not None]
    options = [each for one in commands for each in one.params if isinstance(each, click.Option)]
    return {flag for each in options for flag in each.opts} | {"--help", "-h"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_flag_is_on_the_page(name):
    assert f"lockring {name}" in PAGE or f", {name}" in PAGE
    missing = [flag for flag in sorted(flags_of(name)) if not re.search(rf"(?<![\w-]){flag}(?![\w-])", PAGE)]
    assert missing == []


def test_every_flag_on_the_page_exists():
    there = {flag for name in COMMANDS for flag in flags_of(name)} | {"--full"}  # of an example's own command
    there |= {"--no-" + flag.removeprefix("--") for flag in there}
    there |= {"--auto-compaction-retention", "--prefix"}  # of etcd
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", PAGE))
    assert named - there == set()


def test_the_page_has_exactly_the_variables_that_exist():
    settings = [each for struct in sections().values() for each in settings_of(struct)]
    there = {each.variable for each in settings if each.variable} | {"LOCKRING_CONFIG"}
    for_the_command = {
        f"LOCKRING_{each}" for each in ("FENCING_TOKEN", "NAME", "OWNER", "SESSION", "TTL", "MODE", "TOKENS")
    }
    for_the_store = {PASSWORD_VARIABLE, PASSWORD_FILE_VARIABLE}
    named = set(re.findall(r"LOCKRING_[A-Z_]+\b", PAGE)) - {"LOCKRING_"}
    assert named == there | for_the_command | for_the_store | {TOKEN_VARIABLE}


@pytest.mark.parametrize("section", sections())
def test_defaults_on_the_page_are_those_of_the_code(section):
    for each in settings_of(sections()[section]):
        if each.kind == "switch" or each.default in ("", None) or each.is_required:
            continue
        default = ",".join(each.default) if each.kind == "list" else f"{each.default}".removesuffix(".0")
        rows = [line for line in PAGE.splitlines() if line.startswith("|") and f"`{each.flag} " in line + " "]
        rows += [line for line in PAGE.splitlines() if line.startswith("|") and f", `{each.flag} " in line]
        assert any(default in row for row in rows) or f"`{default}` by default" in PAGE, (
            f"{each.flag}: {default}"
        )


def test_every_exit_code_is_on_the_page():
    codes = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    table = PAGE.partition("## Exit codes")[2].partition("## Errors")[0]
    found = {int(number) for number in re.findall(r"\d+", table)}
    assert codes <= found
