"""The Python original in the standard library: what it answers, without the framework.

Prints the URL that it serves on.
"""

import asyncio

PAGE = """
<html>
<body>
<button onclick="changeEvent('{state}')">{message}</button>
</body>
</html>
"""


async def get_index(event):
    try:
        await asyncio.wait_for(event.wait(), timeout=0.1)
    except asyncio.TimeoutError:
        pass
    page = PAGE.format(
        message="Clear" if event.is_set() else "Set",
        state="False" if event.is_set() else "True",
    )
    return "200 OK", ["content-type: text/html"], page.encode()


async def change_event(event, body):
    # As the original: on everything but True, the event is cleared.
    if body == b"True":
        event.set()
    else:
        event.clear()
    return "204 No Content", [], b""


async def answer(event, reader, writer):
    try:
        while request_line := await reader.readline():
            method, path, _ = request_line.decode().split()
            length = 0
            while (header := (await reader.readline()).decode().strip()) != "":
                name, value = header.split(":", 1)
                if name.lower() == "content-length":
                    length = int(value)
            body = await reader.readexactly(length)
            if (method, path) == ("GET", "/"):
                status, headers, content = await get_index(event)
            elif (method, path) == ("POST", "/change_event"):
                status, headers, content = await change_event(event, body)
            else:
                status, headers, content = "404 Not Found", [], b""
            if status != "204 No Content":
                headers.append(f"content-length: {len(content)}")
            head = "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""])
            writer.write(head.encode() + content)
            await writer.drain()
    finally:
        writer.close()


async def main():
    # Inside the loop that serves: the article's cure.
    event = asyncio.Event()
    server = await asyncio.start_server(
        lambda reader, writer: answer(event, reader, writer), "127.0.0.1", 0
    )
    port = server.sockets[0].getsockname()[1]
    print(f"http://127.0.0.1:{port}", flush=True)
    await server.serve_forever()


asyncio.run(main())
