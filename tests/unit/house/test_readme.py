"""The documentation is true: commands parse, programs compile, settings are known, links and names lead somewhere."""

from __future__ import annotations

import builtins
import functools
import importlib
import re
import shlex
from pathlib import Path

import click
import pytest

from lockring import ids
from lockring.cli.app import root
from lockring.cli.sections import read_file, sections
from lockring.config import load
from tests.unit.house.reading import tree_of
from tests.unit.house.rules import ROOT, SOURCE, classes_of

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)")


def label(value: object) -> str | None:
    """Return the label of a test's parameter."""
    if isinstance(value, list):
        return " ".join(value)[:50]
    return value.name if isinstance(value, Path) else "code"


def fences(language: str) -> list[tuple[Path, str]]:
    """All code of a language, each with the page it is on."""
    return [
        (page, code)
        for page in PAGES
        for kind, code in FENCE.findall(page.read_text(encoding="utf-8"))
        if kind == language
    ]


def commands() -> list[tuple[Path, list[str]]]:
    """Every `lockring …` that a reader may copy, as its arguments."""
    found = []
    for page, code in fences("sh"):
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["lockring"]:
                found.append((page, words[1:]))
    return found


def parse(words: list[str]) -> dict[str, object]:
    """The options that the command line finds in the words; raises `click.UsageError` if it refuses them."""
    with click.Context(root, info_name="lockring") as top:
        name, command, rest = root.resolve_command(top, list(words))
        assert command is not None
        with command.make_context(name, rest, parent=top) as context:
            return context.params


@pytest.mark.parametrize(
    ("page", "words"),
    commands(),
    ids=label,
)
def test_a_command_that_is_shown_is_one(page: Path, words: list[str]) -> None:
    params = parse(words)
    struct = sections().get(words[0])
    if struct is not None:
        load(struct, words[0], flags=params, environ={})


def test_a_command_that_does_not_exist_would_be_found() -> None:
    for words in (["lokc", "x"], ["status", "--no-such-option"], ["node", "--id"], ["lock", "x", "--"]):
        with pytest.raises(click.UsageError):
            parse(words)


def test_every_command_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = {words[0] for code in INLINE.findall(text) if (words := code.removeprefix("lockring ").split())}
    with click.Context(root) as context:
        names = set(root.list_commands(context)) - {"version"}
    assert names <= shown


@pytest.mark.parametrize(("page", "code"), fences("python"), ids=label)
def test_a_program_that_is_shown_compiles(page: Path, code: str) -> None:
    compile(code, str(page), "exec", dont_inherit=True)


@pytest.mark.parametrize(("page", "code"), fences("toml"), ids=label)
def test_settings_that_are_shown_are_known_and_fit(page: Path, code: str, tmp_path: Path) -> None:
    path = tmp_path / "lockring.toml"
    path.write_text(code, encoding="utf-8")
    file = read_file(str(path))
    for name, struct in sections().items():
        if f"[{name}]" in code:
            load(struct, name, flags={}, environ={}, file=file)


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        other = page.parent / target if target else page
        assert other.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", other.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor[1:] in slugs, anchor


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_make_targets_that_are_shown_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    text = page.read_text(encoding="utf-8")
    shown = set(re.findall(r"(?:`|^)(?:[A-Z_]+=\S+ )?make ([a-z-]+)", text, re.MULTILINE))
    assert {target for target in shown if not re.search(rf"^{target}:", makefile, re.MULTILINE)} == set()


PLACE = re.compile(r"(?:[\w-]+/)+[\w.*-]*|[\w/-]+\.(?:py|proto|md|toml|txt|svg)")
"""Inline code that names a file or a folder."""

ELSEWHERE = re.compile(r"uploads/|/|s3:|lockring\.toml|bucket")
"""The beginnings of places that are not in the repository: those of examples."""


def places(page: Path) -> list[str]:
    """Every file and folder of the repository that a page names."""
    found = {code for code in INLINE.findall(page.read_text(encoding="utf-8")) if PLACE.fullmatch(code)}
    return sorted(code for code in found if not ELSEWHERE.match(code))


def is_there(place: str) -> bool:
    """Whether a place exists: pages name it from the root, or from the package."""
    return any(any(folder.glob(place.rstrip("/"))) for folder in (ROOT, SOURCE))


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_files_and_folders_that_are_named_exist(page: Path) -> None:
    assert [place for place in places(page) if not is_there(place)] == []


def test_a_place_that_does_not_exist_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "`core/node_service.py`, `core/machine.py`, `tests/sim/test_scenarios*.py`, `uploads/alice`, `a b/c`\n"
    )
    assert [place for place in places(page) if not is_there(place)] == [
        "core/node_service.py",
        "tests/sim/test_scenarios*.py",
    ]


OF_SPANS = re.compile(r"lockring\.(acquire|hold|release|lock\.name|lock\.mode|outcome|fencing_token)")
"""Names of spans and of their attributes, which are no names of Python."""


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_dotted_names_of_the_package_exist(page: Path) -> None:
    for code in INLINE.findall(page.read_text(encoding="utf-8")):
        dotted = re.fullmatch(r"(lockring(?:\.\w+)+)(?:\(.*\))?", code)
        if (
            dotted is None
            or OF_SPANS.fullmatch(code)
            or dotted[1].startswith("lockring.v1")
            or dotted[1].endswith((".js", ".proto"))
        ):
            continue
        first, *rest = dotted[1].split(".")
        found, path = importlib.import_module(first), first
        for name in rest:
            path = f"{path}.{name}"
            found = getattr(found, name, None) or importlib.import_module(path)


@functools.cache
def class_names() -> set[str]:
    """Every class and type of the sources, every alert, and names in the .proto file, in Python and in Google's API."""
    names = {each.name for path in SOURCE.rglob("*.py") for each in classes_of(tree_of(path))}
    proto = (ROOT / "proto" / "lockring" / "v1" / "lockring.proto").read_text(encoding="utf-8")
    alerts = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text(encoding="utf-8")
    return (
        names
        | set(dir(ids))
        | set(re.findall(r"\w+", proto))
        | set(re.findall(r"- alert: (\w+)", alerts))
        | set(dir(builtins))
        | {"ErrorInfo", "RetryInfo"}
    )


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_classes_and_messages_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    shown = {code for code in INLINE.findall(text) if re.fullmatch(r"(?:[A-Z][a-z]+){2,}", code)}
    assert shown - class_names() == set()
