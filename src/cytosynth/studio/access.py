"""Access to the studio: its key, and the security headers that browsers receive."""

import asyncio
import hmac
import secrets
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

COOKIE = "cytosynth-studio"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}
OPEN = ("/login", "/static/style.css")
"""What can be seen without the key."""
PAUSE = 1.0
"""Seconds that a wrong key costs."""
LOGIN = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>CytoSynth studio</title>
<link rel="stylesheet" href="/static/style.css"></head><body><main class="login"><h1>CytoSynth studio</h1>
<form method="post" action="/login"><label for="key">Password, or the key that the terminal shows</label>
<input id="key" name="key" type="password" autocomplete="current-password" autofocus required>
<button class="main">Open</button></form></main></body></html>"""
MOST_FORM = 4096
"""Bytes of a login."""


class Access:
    """The key, and the names under which the studio may be called."""

    def __init__(self, key: str, hosts: frozenset[str] | None) -> None:
        """Allow access with `key`; `hosts` are the allowed names of this machine, None: any."""
        self.key, self.hosts = key, hosts
        self.ticket = secrets.token_urlsafe(32)
        """The content of the cookie: it is invalid after this run, and does not reveal the key."""

    async def __call__(self, request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        """Answer `request`, or refuse it."""
        response = await self._answer(request, go_on)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    async def _answer(self, request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        if self.hosts is not None and request.url.hostname not in self.hosts:  # a name that was bent to this machine
            return Response("unknown host name", 421)
        origin = request.headers.get("origin")
        if request.method != "GET" and origin is not None and origin != f"{request.url.scheme}://{request.url.netloc}":
            return Response("from another page", 403)
        if request.url.path == "/login" and request.method == "POST":
            form = parse_qs((await _body(request, MOST_FORM)).decode("utf-8", "replace"))
            return await self._login(form.get("key", [""])[0])
        if request.url.path == "/" and "key" in request.query_params:
            return await self._login(request.query_params["key"])
        if request.url.path not in OPEN and not self._known(request):
            if request.url.path.startswith("/api/"):
                return Response("log in first", 401)
            return HTMLResponse(LOGIN, 401)
        if request.url.path == "/login":
            return HTMLResponse(LOGIN)
        return await go_on(request)

    async def _login(self, given: str) -> Response:
        if not hmac.compare_digest(given.encode(), self.key.encode()):
            await asyncio.sleep(PAUSE)
            return HTMLResponse(LOGIN, 401)
        response = RedirectResponse("/", 303)
        response.set_cookie(COOKIE, self.ticket, httponly=True, samesite="strict")
        return response

    def _known(self, request: Request) -> bool:
        return hmac.compare_digest(request.cookies.get(COOKIE, "").encode(), self.ticket.encode())


async def _body(request: Request, most: int) -> bytes:
    """Return the body of `request`, of which no more than `most` bytes are read."""
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > most:
            return b""
    return content
