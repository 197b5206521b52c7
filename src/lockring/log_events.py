"""Names and fields of logged events, for logs that programs read.

    log.info("node %s listens at %s", node, address, extra=event("node-listens", address=address))

The sentence is for people, and may change with any version. The name and the fields stay as `docs/logs.md` has them. A
record bears them as its attributes `event` and `fields`, which a formatter of the program's own may use.
"""

from __future__ import annotations

Field = str | int | float | bool | None


def event(name: str, **fields: Field) -> dict[str, object]:
    """Return the `extra` of a logging call.

    Args:
        name: of the event: an object and what happened to it, in lower case and with hyphens.
        fields: what it is about; durations, sizes and the like with their unit in the name.
    """
    return {"event": name, "fields": fields}
