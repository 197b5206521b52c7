"""Checks of the names of locks, groups, owners and nodes: their form and their length."""

from __future__ import annotations

import re
from typing import Final

from lockring.errors import InvalidRequest
from lockring.ids import LockName, NodeId

LOCK_NAME_BYTES_MAX: Final = 1024
OWNER_BYTES_MAX: Final = 256
NODE_ID_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
GROUP_PREFIX: Final = "group:"
"""The lock of the group NAME is `group:NAME`; its shared holders are the members."""
MEMBER_ID_BYTES_MAX: Final = 128
TTL_MS_MIN: Final = 100
"""Shortest lease. A renewal of a shorter one could not arrive in time reliably."""


def utf8_fault(text: str) -> str:
    """Return why a text cannot be encoded as UTF-8, as the end of "… is not valid UTF-8 text: "; "" if it can.

    Lone surrogates from U+DC80 to U+DCFF stand for bytes from the operating system that are not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        if 0xDC80 <= code <= 0xDCFF:
            return f"it has the byte 0x{code - 0xDC00:02x}, as text in another encoding (Latin-1, say) does"
        return error.reason
    return ""


def _utf8(text: str, what: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        fault = utf8_fault(text)
        raise InvalidRequest(f"{what} {text[:80]!r} is not valid UTF-8 text: {fault}") from None


def check_lock_name(name: object) -> LockName:
    """Return the name if a lock may have it.

    Raises:
        InvalidRequest: not text, empty, longer than 1,024 bytes in UTF-8, or not encodable in it.
    """
    if not isinstance(name, str):
        raise InvalidRequest(f"a lock name must be text, got {type(name).__name__}")
    if not name:
        raise InvalidRequest("a lock name must not be empty")
    size = len(_utf8(name, "lock name"))
    if size > LOCK_NAME_BYTES_MAX:
        raise InvalidRequest(
            f"lock name {name[:40]!r}… is too long: {size} bytes in UTF-8, the limit is {LOCK_NAME_BYTES_MAX}"
        )
    return LockName(name)


def lock_of_group(group: object) -> LockName:
    """Return the name of a group's lock if the group's own name is valid.

    Raises:
        InvalidRequest: not text, empty, longer than 1,018 bytes in UTF-8, or not encodable in it.
    """
    if not isinstance(group, str) or not group:
        raise InvalidRequest(f"a group name must be text and not empty, got {group!r}")
    return check_lock_name(GROUP_PREFIX + group)


def text_searched_from(prefix: str) -> int:
    """Return the place in names with this prefix from which on a search looks for its text.

    The name of each group's lock begins with the same word, which says nothing of a group.
    """
    return len(GROUP_PREFIX) if prefix.startswith(GROUP_PREFIX) else 0


def check_member_id(member: object) -> str:
    """Return the id if a group's member may have it.

    Raises:
        InvalidRequest: not text, empty, longer than 128 bytes in UTF-8, or not encodable in it.
    """
    if not isinstance(member, str) or not member:
        raise InvalidRequest(f"a member id must be text and not empty, got {member!r}")
    size = len(_utf8(member, "member id"))
    if size > MEMBER_ID_BYTES_MAX:
        raise InvalidRequest(
            f"member id {member[:40]!r}… is too long: {size} bytes in UTF-8, the limit is {MEMBER_ID_BYTES_MAX}"
        )
    return member


def check_owner(owner: object) -> str:
    """Return the owner label if it is text of at most 256 bytes in UTF-8.

    Raises:
        InvalidRequest: it is malformed.
    """
    if not isinstance(owner, str):
        raise InvalidRequest(f"an owner must be text, got {type(owner).__name__}")
    size = len(_utf8(owner, "owner"))
    if size > OWNER_BYTES_MAX:
        raise InvalidRequest(
            f"owner {owner[:40]!r}… is too long: {size} bytes in UTF-8, the limit is {OWNER_BYTES_MAX}"
        )
    return owner


def check_node_id(node: object) -> NodeId:
    """Return the node id if it is 1 to 63 letters, digits, dots, dashes or underscores.

    Raises:
        InvalidRequest: it is malformed.
    """
    if not isinstance(node, str) or not NODE_ID_PATTERN.fullmatch(node):
        raise InvalidRequest(
            f"invalid node id {node!r}: use 1 to 63 letters, digits, '.', '-' or '_', starting with a letter or digit"
        )
    return NodeId(node)
