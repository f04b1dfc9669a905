"""Common parts of the routes: JSON in and out, errors in one line, work off the event loop."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..data.image_files import Pixels
from ..errors import UserError
from ..io import plain
from .editing import png

MOST_JSON = 4 << 20
"""Bytes of a request that is no upload."""

Handler = Callable[[Request], Awaitable[Response]]


class Refused(UserError):
    """A request that is not as the page makes it."""


async def content(request: Request, most: int = MOST_JSON) -> bytes:
    """Return the body of `request`; raise Refused for more than `most` bytes, before they are read."""
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said) > most:
        raise Refused(f"{int(said):,} bytes, more than {most:,}")
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise Refused(f"more than {most:,} bytes")
        parts.append(part)
    return b"".join(parts)


async def body(request: Request) -> dict[str, Any]:
    """Return the JSON object of `request`; raise Refused if there is none."""
    try:
        value = plain.checked(plain.from_json((await content(request)).decode()))
    except ValueError as error:
        raise Refused(f"not JSON ({str(error)[:80]})") from None
    if not isinstance(value, dict):
        raise Refused("expected an object")
    return value


def text(values: dict[str, Any], name: str) -> str:
    """Return the string `name` of `values`; raise Refused if there is none."""
    value = values.get(name)
    if not isinstance(value, str):
        raise Refused(f"{name}: expected text")
    return value


def whole(values: dict[str, Any], name: str, least: int = 0, most: int = 2**63 - 1) -> int:
    """Return the whole number `name` of `values`; raise Refused for any other value."""
    value = values.get(name)
    if type(value) is not int or not least <= value <= most:
        raise Refused(f"{name}: expected a whole number from {least} to {most}")
    return value


def number(request: Request, name: str) -> int:
    """Return the whole number `name` of the address; raise Refused if there is none."""
    value = request.query_params.get(name, "")
    if not value.isdecimal() or len(value) > 12:
        raise Refused(f"{name}: expected a number")
    return int(value)


def guarded(handler: Handler) -> Handler:
    """Return `handler` with the user's errors as JSON of one line."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except UserError as error:
            return JSONResponse({"error": plain.one_line(error)}, 400)

    return answer


async def later(work: Callable[..., Any], *values: Any) -> Any:
    """Return what `work` returns, run in a thread."""
    return await asyncio.to_thread(work, *values)


def image(pixels: Pixels, origin: str = "", seconds: int = 0) -> Response:
    """Return `pixels` as a PNG that the browser may keep for `seconds`."""
    headers = {"Cache-Control": f"private, max-age={seconds}"} if seconds else {}
    return Response(png(pixels, origin), media_type="image/png", headers=headers)
