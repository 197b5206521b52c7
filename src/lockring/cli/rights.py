"""Whether the servers of a cluster check the same rights, as they report it themselves. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lockring.protocol import ServerStatus


def about_rights(statuses: Mapping[str, ServerStatus]) -> list[str]:
    """Return a sentence for each way in which servers differ over rights. None if no server checks any.

    Args:
        statuses: of the servers that answer, by name.
    """
    by_mode = _grouped({server: each.auth for server, each in statuses.items()})
    checking = [each for each in ("enforcing", "permissive") if each in by_mode]
    if not checking:
        return []
    remarks = []
    if "off" in by_mode:
        remarks.append(
            f"rights are not checked by {by_mode['off']}, though others check them: start it with --auth and --acl-file too"
        )
    if "" in by_mode:
        remarks.append(
            f"rights are not checked by {by_mode['']}, of a version that knows no identities: upgrade it to this one"
        )
    if len(checking) > 1:
        remarks.append(
            f"rights are only tried out by {by_mode['permissive']} (--auth permissive), though others enforce them"
        )
    editions = _grouped({server: each.acl for server, each in statuses.items() if each.acl})
    if len(editions) > 1:
        held = "; ".join(f"{edition} at {servers}" for edition, servers in editions.items())
        remarks.append(
            f"the servers have different ACL files, so that rights depend on the server that is asked: {held}"
        )
    return remarks


def rights_line(found: Mapping[str, Any]) -> str:
    """Return a line on the rights that servers check, "" if none checks any.

    Args:
        found: the cluster as a JSON object.
    """
    servers = [(each["auth"], each["acl_edition"]) for each in found["members"]]
    servers.append((found["coordinator_auth"], found["coordinator_acl_edition"]))
    modes = sorted({auth for auth, edition in servers if edition})
    editions = sorted({edition for _, edition in servers if edition})
    return (
        f"rights are {' or '.join(modes)}, by the ACL file of edition {', '.join(editions)}" if modes else ""
    )


def _grouped(values: Mapping[str, str]) -> dict[str, str]:
    """Return the names of the servers that have each value, sorted by their first name."""
    found: dict[str, list[str]] = {}
    for server, value in sorted(values.items()):
        found.setdefault(value, []).append(server)
    return {value: ", ".join(servers) for value, servers in found.items()}
