"""Serves a sandbox over HTTP until it is told to stop, and then ends what has begun."""

import asyncio
import ipaddress
import signal
import socket
from collections.abc import Callable

from aiohttp import web

from retool.config.sandbox import SandboxConfig
from retool.errors import RetoolError, UsageError
from retool.sandbox import open_files
from retool.sandbox.client import Sandbox
from retool.sandbox.containment.isolation import describe_isolation
from retool.sandbox.service.api import Api, Handler

_BACKLOG = 1024
_OWN_FILES = 64
_KEEP_ALIVE_SECONDS = 75.0
_PAUSE_SECONDS = 0.05
_LAST_ANSWERS_SECONDS = 5.0


async def serve(
    config: SandboxConfig,
    *,
    host: str,
    port: int,
    token: str | None,
    queue: int,
    drain_seconds: float,
    announce: Callable[[str], None],
) -> None:
    """Listen on `host` and `port` (0: a free one) until SIGTERM or SIGINT.

    Then new requests are refused, those inside have `drain_seconds` to end, and the sandbox is closed; a second signal
    cuts the wait short. `announce` is told in a sentence where the server listens. Raises UsageError where others
    could run code without a token, RetoolError where it cannot listen or the sandbox cannot start.
    """
    _check_access(host, token)
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_ in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_, lambda: (hurry if stop.is_set() else stop).set())

    with await _listen(host, port) as listener:
        async with Sandbox(config) as box:
            api = Api(box, queue=queue, token=token)
            # There may be a connection for each trajectory.
            most = max(1, open_files.lift_limit() - _OWN_FILES)
            runner = runner_of(api, most)
            await runner.setup()
            accepting = asyncio.create_task(accept(listener, runner, most))
            try:
                announce(f"{_url(listener)}, {box.workers} workers, {describe_isolation(box.isolation)}")
                await stop.wait()
                await _drain(api, drain_seconds, hurry)
                await asyncio.to_thread(box.close)  # what is left inside ends with an error that is still answered
            finally:
                accepting.cancel()
                await runner.cleanup()


def runner_of(api: Api, most: int) -> web.AppRunner:
    """What speaks HTTP for `api` over at most `most` connections. A client that goes away takes its execution along."""

    @web.middleware
    async def leave_room(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        if len(runner.server.connections) > most // 2:
            response.force_close()  # or clients that rest keep their places from those that wait for one
        return response

    application = api.application()
    application.middlewares.insert(0, leave_room)
    runner = web.AppRunner(
        application,
        handler_cancellation=True,
        access_log=None,
        keepalive_timeout=_KEEP_ALIVE_SECONDS,
        shutdown_timeout=_LAST_ANSWERS_SECONDS,
    )
    return runner


async def accept(listener: socket.socket, runner: web.AppRunner, most: int) -> None:
    """Give the connections of `listener` to `runner`, at most `most` at a time; further ones wait in the kernel.

    asyncio's own loop does not stop at a number, and repeats itself at full speed when it runs out of descriptors.
    """
    loop = asyncio.get_running_loop()
    while True:
        while len(runner.server.connections) >= most:
            await asyncio.sleep(_PAUSE_SECONDS)
        try:
            connection, _ = await loop.sock_accept(listener)
        except OSError:  # the peer has gone, or the system is out of descriptors or memory
            await asyncio.sleep(_PAUSE_SECONDS)
            continue
        await loop.connect_accepted_socket(runner.server, connection)


async def _listen(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, *_, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        listener = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        reason = f"cannot listen on {host} port {port}: {error.strerror}; choose another --host or --port"
        raise RetoolError(reason) from error
    listener.setblocking(False)
    return listener


async def _drain(api: Api, seconds: float, hurry: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(api.admission.close()), asyncio.ensure_future(hurry.wait())]
    await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


def _check_access(host: str, token: str | None) -> None:
    if token is None and not _is_loopback(host):
        raise UsageError(
            f"{host} can be reached from other machines, which could run code here: give --token, or --host 127.0.0.1"
        )
    if token is not None and not (token and all(33 <= ord(character) <= 126 for character in token)):
        raise UsageError("the token must be of visible ASCII characters, without spaces, and not empty")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
