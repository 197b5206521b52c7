"""Templates, and the headers of a page."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from lockring.terminals import command, shown
from lockring.views.words import count, duration

_HERE: Final = Path(__file__).parent

POLICY: Final = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
)
"""A page loads nothing from elsewhere, has no script or style inside of it, and is shown in no frame."""

STATIC: Final = {
    "dashboard.css": "text/css; charset=utf-8",
    "dashboard.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


class Templates:
    """The templates of the pages, for one event loop.

    All of them are compiled at once, in a thread: that takes a tenth of a second, in which a node has to work.
    """

    def __init__(self) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            finalize=_visible,
            undefined=StrictUndefined,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(duration=duration, number=_number, percent=_percent)
        self._environment.globals.update(link=page_url, count=count, command=command)
        self._are_compiled = False
        self._compiling = threading.Lock()

    async def compile(self) -> None:
        """Compile them, unless they are. The first page does it otherwise."""
        if not self._are_compiled:
            await asyncio.to_thread(self._compile)

    async def page(self, template: str, status: int = 200, **values: Any) -> Response:
        """Return a whole page.

        Args:
            template: the name of its template.
            status: of HTTP.
            values: what its template needs.
        """
        text = await self._rendered(template, layout="page.html", **values)
        # Without a referrer of its own site, a browser would not say from which site a form comes.
        headers = {"content-security-policy": POLICY, "referrer-policy": "same-origin"}
        return HTMLResponse(text, status, headers)

    async def content(self, template: str, **values: Any) -> str:
        """Return the content of a page alone, without what is around it."""
        return await self._rendered(template, layout="content.html", **values)

    async def _rendered(self, template: str, **values: Any) -> str:
        await self.compile()
        return self._environment.get_template(template).render(**values)

    def _compile(self) -> None:
        with self._compiling:  # pages that are asked for at the same time find them compiled by the first
            for name in self._environment.list_templates():
                self._environment.get_template(name)
            self._are_compiled = True


def page_url(page: str, /, **parameters: object) -> str:
    """Return a relative URL of a page; parameters without a value are left out."""
    given = {name: value for name, value in parameters.items() if value not in (None, "")}
    return (page or "./") + ("?" + urlencode(given) if given else "")


def static_file(name: str) -> Response:
    """Return a file of the pages. Browsers ask again whether it has changed with each start of the server."""
    data = (_HERE / "static" / name).read_bytes()
    return Response(data, media_type=STATIC[name], headers={"cache-control": "no-cache"})


def as_json(values: object) -> Response:
    """Return views as JSON."""
    import msgspec

    return Response(msgspec.json.encode(values), media_type="application/json")


def event_of(kind: str, data: object) -> bytes:
    """Return an event of a stream, with its data as JSON in one line."""
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def _visible(value: object) -> object:
    """Return a value of a template with escapes in place of characters that are invisible or change the direction.

    HTML is left as it is, and so is the value of a field or an id: with the filter `e` it is HTML already.
    """
    return shown(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _number(value: float) -> str:
    return f"{value:,}"


def _percent(value: float) -> str:
    return f"{value * 100:.1f} %"
