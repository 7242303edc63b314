"""The doorbell in Python, with most of its routes. `tests/component/dependency.rs` builds a component of it."""

import asyncio

from componentize_py_types import Err
from spin_sdk import http
from spin_sdk.http import Request, Response
from wit_world.imports.events import Event, Waited


class HttpHandler(http.Handler):
    async def handle_request(self, request: Request) -> Response:
        try:
            status, text = 200, await answer(request.method, request.uri.strip("/").split("/"))
        except Err as error:
            status, text = 500, repr(error.value)
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
            return shown(await event.wait(int(ms) * 1_000_000))
        case "POST", ["meet", ms]:
            waited, _ = await asyncio.gather(event.wait(int(ms) * 1_000_000), event.set())
            return shown(waited)
        case _:
            return "There is nothing here."
    return "done"


def shown(waited: Waited) -> str:
    """The name in the interface."""
    return waited.name.lower().replace("_", "-")
