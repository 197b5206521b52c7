"""The pages that every process has: whether it lives, is ready and leads, its metrics, and its tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from lockring.server.http.pages import Page, wants_json
from lockring.server.http.parts import Check, HttpPart
from lockring.server.http.tasks import task_stacks
from lockring.server.metrics.exposition import Exposition
from lockring.server.metrics.figures import Figures

_READY: Final = 200
_NOT_READY: Final = 503


def basic_pages(
    parts: Sequence[HttpPart], add_process_figures: Callable[[Figures], None] = lambda figures: None
) -> list[Page]:
    """Return the pages about the servers of a process.

    Args:
        parts: the servers.
        add_process_figures: adds the metrics of the process.
    """
    exposition = Exposition()

    async def live(request: Request) -> Response:
        """Answer: the event loop that answers is the one that serves locks."""
        return JSONResponse({"live": True}) if wants_json(request) else PlainTextResponse("live\n")

    async def ready(request: Request) -> Response:
        checks = [(part.name, check) for part in parts for check in part.checks()]
        status = _READY if all(check.ok for _, check in checks) else _NOT_READY
        if wants_json(request):
            return JSONResponse(
                {
                    "ready": status == _READY,
                    "checks": [
                        {"server": name, "name": check.name, "ok": check.ok, "note": check.note}
                        for name, check in checks
                    ],
                },
                status,
            )
        if status == _READY and "verbose" not in request.query_params:
            return PlainTextResponse("ready\n")
        lines = [_line(name, check) for name, check in checks]
        return PlainTextResponse("".join(lines) + ("ready\n" if status == _READY else "not ready\n"), status)

    async def leader(request: Request) -> Response:
        leads = any(part.is_leader() for part in parts if part.is_leader is not None)
        status = _READY if leads else _NOT_READY
        if wants_json(request):
            return JSONResponse({"leader": leads}, status)
        return PlainTextResponse("leader\n" if leads else "not the leader\n", status)

    async def metrics(request: Request) -> Response:
        figures = Figures()
        for part in parts:
            part.add_figures(figures)
        add_process_figures(figures)
        page, content_type = exposition.page(figures, request.headers.get("accept", ""))
        return Response(page, headers={"Content-Type": content_type})

    async def tasks(request: Request) -> Response:
        stacks = task_stacks()
        if wants_json(request):
            return JSONResponse({"tasks": [each._asdict() for each in stacks]})
        return PlainTextResponse("\n".join(f"{each.name}\n{each.stack}" for each in stacks))

    return [
        Page("/livez", live),
        Page("/healthz", live),
        Page("/readyz", ready),
        Page("/leader", leader),
        Page("/metrics", metrics),
        Page("/debug/tasks", tasks),
    ]


def _line(server: str, check: Check) -> str:
    return f"[{'+' if check.ok else '-'}] {server} {check.name}{'' if check.ok else f': {check.note}'}\n"
