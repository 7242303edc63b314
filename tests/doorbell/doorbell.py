"""The doorbell in Python, with the same routes."""

import asyncio

from componentize_py_types import Err
from spin_sdk import http
from spin_sdk.http import Request, Response
from wit_world.imports.events import Event


class HttpHandler(http.Handler):
    async def handle_request(self, request: Request) -> Response:
        try:
            status, text = 200, await answer(request.method, request.uri.strip("/").split("/"))
        except Err as error:
            status, text = 500, f"{type(error.value).__name__} {getattr(error.value, 'value', '')}"
        return Response(status, {"content-type": "text/plain"}, text.encode())


async def answer(method: str, path: list[str]) -> str:
    event = Event.open(path[0])
    match method, path[1:]:
        case "GET", []:
            return str(await event.is_set()).lower()
        case "PUT", []:
            await event.set()
        case "DELETE", []:
            await event.clear()
        case "GET", ["wait", ms]:
            return (await event.wait(int(ms) * 1_000_000)).name.lower()
        case "POST", ["meet", ms]:
            waited, _ = await asyncio.gather(event.wait(int(ms) * 1_000_000), event.set())
            return waited.name.lower()
    return "done"
