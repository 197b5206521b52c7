"""The parts of a store's URL, and the removal of its secrets from the texts of libraries.

- *A part is shown only if it is known not to be secret.* Where a URL cannot be taken apart, no slice of it is shown:
  that may be a part of the password. So `…://user:pass/word@host` is refused without a quotation.
- *An unescaped sign in a password is found.* It would end the password early, and make a host, a database or a
  cluster's name of the rest. An @ then stands behind the sign, where a URL of a store has none.
- *What libraries say is scrubbed.* Some quote what they were given.

Without an @, `…://NAME:1234` names a host and a port, even if a password was meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, quote_plus, unquote

from lockring.addresses import PORT_MAX
from lockring.errors import InvalidRequest

_HOST: Final = re.compile(r"(?:[\w.\-]|%2[fF]|%5[fF])*")
"""A name, an address, or the path of a socket's directory with its slashes escaped."""
_IP_V6: Final = re.compile(r"\[[0-9A-Fa-f:.]+(?:%25[\w.\-]+)?\]")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_WORD_CHARACTERS_MAX: Final = 3
"""A secret as short as this is removed where it stands alone: else words that happen to contain it would suffer."""
_HIDDEN: Final = "…"


@dataclass(frozen=True)
class UrlHost:
    """A host of a URL.

    Attributes:
        name: as in the URL, without brackets; "" if it is left out.
        port: its port, None if it is left out.
    """

    name: str
    port: int | None


@dataclass(frozen=True)
class UrlParts:
    """A URL, taken apart and decoded. Its `repr` has no secret.

    Attributes:
        scheme: what stands before `://`.
        user: the name of the user, "" for none.
        hosts: at least one, which may be empty.
        path: what follows the hosts, without its slash.
        parameters: names and values, in order.
        fragment: what follows the #.
        password: "" for none.
        written: the password as it is written in the URL.
    """

    scheme: str
    user: str
    hosts: tuple[UrlHost, ...]
    path: str
    parameters: tuple[tuple[str, str], ...] = field(repr=False)
    fragment: str = field(repr=False)
    password: str = field(repr=False)
    written: str = field(repr=False)


def take_apart(url: str, form: str) -> UrlParts:
    """Return the parts of a URL.

    Args:
        url: it has `://`.
        form: the form that is expected, for the error.

    Raises:
        InvalidRequest: it is malformed; the text has nothing of it.
    """
    scheme, _, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    rest = rest[len(authority) :]
    if "@" in rest or authority.count("@") > 1:
        raise _malformed("an @ stands where none can be", form)
    if _BAD_ESCAPE.search(url):
        raise _malformed("two digits from 0 to F do not follow each %", form)
    if any(character.isspace() or not character.isprintable() for character in url):
        raise _malformed("it has a space or a character that does not print", form)
    credentials, _, hosts = authority.rpartition("@")
    user, _, written = credentials.partition(":")
    rest, _, fragment = rest.partition("#")
    path, _, query = rest.partition("?")
    try:
        return UrlParts(
            scheme=scheme,
            user=_decoded(user),
            hosts=tuple(_host(each, form) for each in hosts.split(",")),
            path=_decoded(path.removeprefix("/")),
            parameters=tuple(_parameter(each, form) for each in query.split("&")) if query else (),
            fragment=_decoded(fragment),
            password=_decoded(written),
            written=written,
        )
    except UnicodeDecodeError:
        pass
    raise _malformed("an escaped character is not UTF-8", form)


class Secrets:
    """Words that no text for people may contain.

    Args:
        words: as they are, and as they were given; empty ones are left out.
    """

    def __init__(self, words: Iterable[str]) -> None:
        forms = {
            form
            for word in words
            if word
            for form in (word, quote(word), quote(word, safe=""), quote_plus(word))
        }
        # The longest first: one may be a part of another.
        self._patterns = [_pattern(form) for form in sorted(forms, key=len, reverse=True)]

    def scrubbed(self, text: str) -> str:
        """Return a text without the words."""
        for pattern in self._patterns:
            text = pattern.sub(_HIDDEN, text)
        return text


def _pattern(word: str) -> re.Pattern[str]:
    escaped = re.escape(word)
    return re.compile(rf"(?<!\w){escaped}(?!\w)" if len(word) <= _WORD_CHARACTERS_MAX else escaped)


def _malformed(what: str, form: str) -> InvalidRequest:
    return InvalidRequest(
        f"the URL of the store is malformed: {what}; expected {form}, with a space and / ? # @ % in a password written"
        " as %20 %2F %3F %23 %40 %25"
    )


def _decoded(text: str) -> str:
    return unquote(text, errors="strict")


def _host(text: str, form: str) -> UrlHost:
    bracketed = _IP_V6.match(text)
    name = bracketed[0] if bracketed else text.partition(":")[0]
    colon, port = text[len(name) : len(name) + 1], text[len(name) + 1 :]
    is_port = not port or (port.isascii() and port.isdigit() and int(port) <= PORT_MAX)
    if not (bracketed or _HOST.fullmatch(name)) or colon not in ("", ":") or not is_port:
        raise _malformed("a host is not HOST or HOST:PORT", form)
    return UrlHost(name.strip("[]"), int(port) if port else None)


def _parameter(text: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise _malformed("a parameter is not NAME=VALUE", form)
    return _decoded(name), _decoded(value)
