"""Checks of names: what locks, groups, owners and nodes may be called, and how long a name may be."""

from __future__ import annotations

import re
from typing import Final

from lockring.errors import InvalidRequest

LOCK_NAME_BYTES_MAX: Final = 1024
OWNER_BYTES_MAX: Final = 256
NODE_ID_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
GROUP_PREFIX: Final = "group:"
"""The lock of the group NAME is `group:NAME`; its shared holders are the members."""
MEMBER_ID_BYTES_MAX: Final = 128
TTL_MS_MIN: Final = 100
"""Shortest lease: below it a renewal could not make the trip reliably."""


def utf8_fault(text: str) -> str:
    """Why a text cannot be written as UTF-8, as the end of "… is not valid UTF-8 text: "; "" if it can.

    Lone surrogates from U+DC80 to U+DCFF stand for bytes that the system handed over and that are no UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        if 0xDC80 <= code <= 0xDCFF:
            return f"it has the byte 0x{code - 0xDC00:02x}, as text of another encoding (Latin-1, say) does"
        return error.reason
    return ""


def _utf8(text: str, what: str) -> bytes:
    fault = utf8_fault(text)
    if fault:
        raise InvalidRequest(f"{what} {text[:80]!r} is not valid UTF-8 text: {fault}")
    return text.encode()


def check_lock_name(name: object) -> str:
    """Return the name if it may name a lock.

    Raises:
        InvalidRequest: not text, empty, longer than 1,024 bytes in UTF-8, or not encodable in it.
    """
    if not isinstance(name, str):
        raise InvalidRequest(f"a lock name is text, not {type(name).__name__}")
    if not name:
        raise InvalidRequest("a lock name must not be empty")
    size = len(_utf8(name, "the lock name"))
    if size > LOCK_NAME_BYTES_MAX:
        raise InvalidRequest(
            f"a lock name has at most {LOCK_NAME_BYTES_MAX} bytes; {name[:40]!r}… has {size}"
        )
    return name


def lock_of_group(group: object) -> str:
    """The name of a group's lock, if the group may have that name.

    Raises:
        InvalidRequest: not text, empty, longer than 1,018 bytes in UTF-8, or not encodable in it.
    """
    if not isinstance(group, str) or not group:
        raise InvalidRequest(f"a group's name is text that is not empty, not {group!r}")
    return check_lock_name(GROUP_PREFIX + group)


def check_member_id(member: object) -> str:
    """Return the id if it may be that of a group's member.

    Raises:
        InvalidRequest: not text, empty, longer than 128 bytes in UTF-8, or not encodable in it.
    """
    if not isinstance(member, str) or not member:
        raise InvalidRequest(f"a member's id is text that is not empty, not {member!r}")
    size = len(_utf8(member, "the member id"))
    if size > MEMBER_ID_BYTES_MAX:
        raise InvalidRequest(
            f"a member's id has at most {MEMBER_ID_BYTES_MAX} bytes; {member[:40]!r}… has {size}"
        )
    return member


def check_owner(owner: object) -> str:
    """Return the owner label if it is text of at most 256 bytes in UTF-8.

    Raises:
        InvalidRequest: it is not.
    """
    if not isinstance(owner, str):
        raise InvalidRequest(f"an owner is text, not {type(owner).__name__}")
    size = len(_utf8(owner, "the owner"))
    if size > OWNER_BYTES_MAX:
        raise InvalidRequest(f"an owner has at most {OWNER_BYTES_MAX} bytes; {owner[:40]!r}… has {size}")
    return owner


def check_node_id(node: object) -> str:
    """Return the node id if it is 1 to 63 letters, digits, dots, dashes or underscores.

    Raises:
        InvalidRequest: it is not.
    """
    if not isinstance(node, str) or not NODE_ID_PATTERN.fullmatch(node):
        raise InvalidRequest(
            f"a node id is 1 to 63 letters, digits, '.', '-' or '_', starting with a letter or digit; not {node!r}"
        )
    return node
