"""The HTTP face of a sandbox: SandboxFusion's `POST /run_code`, our own `POST /v1/run`, health and metrics.

Needs the extra `serve`. At most `queue` requests wait at a time; what comes on top is refused at once, so that a
client learns of the overload before its own time-out does.
"""

import asyncio
import dataclasses
import hmac
import reprlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import ValidationError

from retool.config.base import Section
from retool.config.sandbox import Limits
from retool.errors import RetoolError
from retool.sandbox.client import Sandbox
from retool.sandbox.containment.isolation import describe_isolation
from retool.sandbox.result import Result
from retool.sandbox.service import fusion
from retool.sandbox.service.metrics import Metrics

TRAJECTORY_HEADER = "X-Trajectory-Id"
"""Requests that carry the same value share one place in the sandbox's round; without it, those of a connection do."""

_MAX_BODY_MIB = 16
_RETRY = {"Retry-After": "1"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Run(Section):
    """The body of `POST /v1/run`: the arguments of `Sandbox.run`. Of `limits`, what is left out is the server's."""

    code: str
    stdin: str = ""
    echo: bool = False
    key: Any = None
    limits: Limits | None = None


class QueueFull(RetoolError):
    """As many requests wait as may."""


class Admission:
    """Counts the requests in the house, and closes the door when it is full or when the server is to end."""

    def __init__(self, workers: int, queue: int) -> None:
        self.closed = False
        self._workers = workers
        self._queue = queue
        self._inside = 0
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def running(self) -> int:
        return min(self._inside, self._workers)

    @property
    def waiting(self) -> int:
        return self._inside - self.running

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Be inside for the body of the `with`. Raises QueueFull, or RetoolError once the door is closed."""
        if self.closed:
            raise RetoolError("the server is shutting down: send the request to another one, or again later")
        if self._inside >= self._workers + self._queue:
            raise QueueFull(f"{self._queue} requests are waiting, the most that may: send this one again later")
        self._inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    async def close(self) -> None:
        """Let nobody in any more, and wait until everybody has left."""
        self.closed = True
        await self._empty.wait()


class Api:
    """The routes over `box`, which must be started. With `token`, all but `/health` ask for it."""

    def __init__(self, box: Sandbox, *, queue: int, token: str | None = None) -> None:
        self.admission = Admission(box.workers, queue)
        self._box = box
        self._token = token
        self._isolation = describe_isolation(box.isolation)
        self._metrics = Metrics(box.workers, lambda: self.admission.waiting, lambda: self.admission.running)

    def application(self) -> web.Application:
        """For a runner with `handler_cancellation`, or a client that goes away leaves its code running."""
        app = web.Application(middlewares=[_errors_as_json, self._authorized], client_max_size=_MAX_BODY_MIB << 20)
        app.router.add_post("/run_code", self._run_code)
        app.router.add_post("/v1/run", self._run)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._show_metrics)
        return app

    async def _run_code(self, request: web.Request) -> web.Response:
        try:
            body = fusion.RunCode.model_validate_json(await request.read())
        except ValidationError as error:
            return web.json_response(fusion.invalid(error), status=422)
        if refusal := body.refusal:
            self._metrics.refused("not_supported")
            return web.json_response(fusion.sandbox_error(refusal))
        try:
            result = await self._execute(request, body.code, body.limits(self._box.config), stdin=body.stdin or "")
        except RetoolError as error:
            return web.json_response(fusion.sandbox_error(str(error)), status=504, headers=_RETRY)
        status, response = fusion.answer(result)
        return web.json_response(response, status=status)

    async def _run(self, request: web.Request) -> web.Response:
        try:
            body = Run.model_validate_json(await request.read())
        except ValidationError as error:
            return _error(400, _explain(error))
        given = body.limits.model_dump(exclude_unset=True) if body.limits else {}
        limits = Limits(**self._box.config.model_dump(include=set(Limits.model_fields)) | given)
        try:
            result = await self._execute(request, body.code, limits, body.key, stdin=body.stdin, echo=body.echo)
        except QueueFull as error:
            return _error(429, str(error), _RETRY)
        except RetoolError as error:
            return _error(503, str(error), _RETRY)
        return web.json_response(dataclasses.asdict(result) | {"text": result.text})

    async def _execute(
        self, request: web.Request, code: str, limits: Limits, key: object = None, **options: Any
    ) -> Result:
        try:
            with self.admission.enter():
                result = await self._box.run(code, limits, key, group=_group(request), **options)
        except QueueFull:
            self._metrics.refused("queue_full")
            raise
        except RetoolError:
            self._metrics.refused("unavailable")
            raise
        except asyncio.CancelledError:
            self._metrics.abandoned()
            raise
        self._metrics.executed(result)
        return result

    async def _health(self, _: web.Request) -> web.Response:
        state = {
            "status": "draining" if self.admission.closed else "ok",
            "workers": self._box.workers,
            "isolation": self._isolation,
            "waiting": self.admission.waiting,
            "running": self.admission.running,
        }
        return web.json_response(state, status=503 if self.admission.closed else 200)

    async def _show_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    @web.middleware
    async def _authorized(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self._token is not None and request.path != "/health":
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            given, expected = (text.encode("utf-8", "surrogateescape") for text in (token.strip(), self._token))
            if scheme.lower() != "bearer" or not hmac.compare_digest(given, expected):
                message = "this server asks for its token: send the header `Authorization: Bearer TOKEN`"
                return _error(401, message, {"WWW-Authenticate": "Bearer"})
        return await handler(request)


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPRequestEntityTooLarge:
        return _error(413, f"the body is larger than {_MAX_BODY_MIB} MiB, the most that is read")
    except web.HTTPNotFound:
        return _error(404, f"there is no {request.path}: POST /run_code or /v1/run, GET /health or /metrics")
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        return _error(405, f"{request.path} takes {allowed}, found {request.method}", {"Allow": allowed})


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": message}, status=status, headers=headers)


def _explain(error: ValidationError) -> str:
    """The first of the errors in one sentence."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "the body"
    reason = first["msg"][:1].lower() + first["msg"][1:]
    fields = ", ".join(Run.model_fields)
    return f"{where}: {reason}, found {reprlib.repr(first['input'])}; POST /v1/run takes a JSON object with {fields}"


def _group(request: web.Request) -> str:
    trajectory = request.headers.get(TRAJECTORY_HEADER)
    if trajectory is None:
        return f"connection {request.get_extra_info('peername')}"
    return "trajectory " + trajectory.encode("utf-8", "backslashreplace").decode()  # a header may hold any bytes
