"""The rules for prose, as functions over a text.

They yield findings, each with its line, and none if the text keeps the rule. `worn_phrases` takes any text: the
`without_code` of a page, or the `comments_and_docstrings` of a module. The other rules are about Markdown alone.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from typing import Final, NamedTuple

LINE_MAX: Final = 120
"""Characters of a line of prose. Longer ones cannot be reviewed as differences."""


class Finding(NamedTuple):
    """A place that breaks a rule.

    Attributes:
        line: its number, from 1.
        text: the words in question, or the start of the line.
        advice: what to write instead.
    """

    line: int
    text: str
    advice: str


PHRASES: Final[tuple[tuple[str, str], ...]] = (
    (r"anew", "again, afresh, from scratch"),
    (r"in vain", "without success"),
    (r"at the most", "at most"),
    (r"at the least", "at least"),
    (r"by now", "already"),
    (r"of which", "whose; or a sentence of its own"),
    (r"of before", "earlier, former"),
    (r"(?<!there\s)is no(?! longer| more| less| different)", "is not a"),
    (
        r"(?:is|are|was|were) to (?:be|come|do|get|go|have|own|run|say|see|stay|wait)",
        "must, should, or the present tense",
    ),
    (r"whoever|whomever", "a noun: the client, the process that …"),
    (r"nobody|somebody|anybody|everybody", "a noun: no client, another process, every node"),
    (r"(?:and|but|by|for|from|if|of|than|those|to|with) who", "a noun: the holder, the waiter, readers"),
    (r"told", "reported, notified; or what the receiver learns"),
    (r"tell(?:s|ing)? (?:of|about)", "report, describe"),
    (r"stop(?:s|ped)? to (?:be|believe|hold|own|renew|serve|wait)", "stop owning, stop serving"),
    (r"believe[sd]? to", "believe that"),
    (r"had better", "should"),
    (r"put right", "mend, fix"),
    (r"on the way of", "on the path of"),
    (r"in some (?:minutes|seconds)", "in a few minutes"),
    (r"at your service", "ready"),
    (r"the whole of it", "all of it"),
    (r"without a word", "without notice"),
    (r"none any more", "no longer one"),
    (r"also (?:after|if|when|where|without)", "even after, even if"),
    (r"for ever", "forever"),
)
"""Turns of phrase that are not English as a native engineer writes it, each with what to write instead."""

_PHRASE: Final = re.compile(
    "|".join(
        rf"(?P<p{number}>\b(?:{phrase})\b)".replace(" ", r"\s+") for number, (phrase, _) in enumerate(PHRASES)
    ),
    re.IGNORECASE,
)
_STARTS_WITH_PRONOUN: Final = re.compile(
    r"^[ \t]*(?:[-*|] |\d+\. )*(Whom?|What)\b(?![^\n]*[?:]\s*$)", re.MULTILINE
)


def worn_phrases(text: str) -> Iterator[Finding]:
    """Yield the phrases of `PHRASES` in any text, also across line ends, and lines that begin with Who or What.

    A question, and a line that introduces a list, may begin so.
    """
    for match in _PHRASE.finditer(text):
        assert match.lastgroup is not None
        advice = PHRASES[int(match.lastgroup[1:])][1]
        yield Finding(_line_of(text, match.start()), " ".join(match.group().split()), advice)
    for match in _STARTS_WITH_PRONOUN.finditer(text):
        yield Finding(_line_of(text, match.start(1)), f"{match.group(1)} …", "a noun")


def _line_of(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


_FENCE: Final = re.compile(r"^[ \t]*```.*?^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL)
_CODE: Final = re.compile(r"`[^`\n]+`")
_LINK_DEFINITION: Final = re.compile(r"\s*\[[^\]]+\]: ")


def without_code(page: str) -> str:
    """Return a Markdown page in which code blocks are empty lines and inline code is a word, line by line the same."""
    fenceless = _FENCE.sub(lambda match: "\n" * match.group().count("\n"), page)
    return _CODE.sub(lambda match: "X" * len(match.group()), fenceless)


def _prose_of(page: str) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines of a page that are prose: no code blocks, tables, link definitions or images."""
    for number, line in enumerate(without_code(page).split("\n"), start=1):
        if not line.lstrip().startswith(("|", "![", "<!--")) and not _LINK_DEFINITION.match(line):
            yield number, line


def long_lines(page: str) -> Iterator[Finding]:
    """Yield the lines of prose that are longer than `LINE_MAX` characters."""
    for number, line in _prose_of(page):
        if len(line) > LINE_MAX:
            yield Finding(
                number, line[:40], f"{len(line)} characters: end the sentence, or the line, earlier"
            )


_LEAD: Final = re.compile(r"\s*(?:[-*] |\d+\. )?(?:\*\*[^*]+\*\*)?")
"""A list's mark and a heading in bold that runs into its sentence."""

_SENTENCES: Final = re.compile(r"(?<!e\.g)(?<!i\.e)(?<!vs)[.!?][)*_\"”’]*\s+(?=[(*_\"“\[]*[A-Z0-9])")


def crowded_lines(page: str) -> Iterator[Finding]:
    """Yield the lines of prose on which a second sentence begins."""
    for number, line in _prose_of(page):
        if line.startswith("#"):
            continue
        lead = _LEAD.match(line)
        assert lead is not None
        found = _SENTENCES.search(line, lead.end())
        if found is not None:
            yield Finding(number, line[found.end() :][:40], "begin it on a line of its own")


def long_prose(source: str) -> Iterator[Finding]:
    """Yield the lines of a module's comments and docstrings that are longer than `LINE_MAX` characters."""
    lines = source.splitlines()
    if max(map(len, lines), default=0) <= LINE_MAX:
        return
    for number, prose in enumerate(comments_and_docstrings(source).split("\n"), start=1):
        if prose.strip() and len(lines[number - 1]) > LINE_MAX:
            length = len(lines[number - 1])
            yield Finding(number, prose[:40], f"{length} characters: break the line, or shorten the sentence")


def messages(source: str) -> str:
    """Return a module without its code, line by line the same: the texts in strings that are not docstrings."""
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = [""] * len(source.splitlines())
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            if " " in node.value:
                found[node.lineno - 1] += f" {' '.join(node.value.split())}"
    return "\n".join(found)


def comments_and_docstrings(source: str) -> str:
    """Return a module without its code, line by line the same: comments, docstrings, and strings below names.

    Inline code in them is a word, as in `without_code`.
    """
    lines = source.splitlines()
    found = [""] * len(lines)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            found[token.start[0] - 1] = token.string.lstrip("#: ")
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            assert node.end_lineno is not None
            for number in range(node.lineno - 1, node.end_lineno):
                found[number] = lines[number].strip().strip('"')
    return without_code("\n".join(found))
