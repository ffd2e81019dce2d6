"""The sandbox over HTTP, asked as SandboxFusion's clients ask it and in its own way."""

import asyncio
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, TCPConnector
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import descendants

from conftest import SHORT
from retool.sandbox import Result, Sandbox
from retool.sandbox.service import fusion
from retool.sandbox.service.api import Api
from retool.sandbox.service.server import accept, runner_of
from retool.types import CallStatus

EXCHANGES = json.loads((Path(__file__).parent / "fusion_exchanges.json").read_text())
FOREVER = {"code": "while True: pass", "limits": {"cpu_seconds": 60.0}}

Talk = Callable[[ClientSession], Awaitable[Any]]


@asynccontextmanager
async def connected(box: Sandbox, queue: int = 100, token: str | None = None) -> AsyncIterator[ClientSession]:
    runner = runner_of(Api(box, queue=queue, token=token), most=100)
    await runner.setup()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        accepting = asyncio.create_task(accept(listener, runner, most=100))
        try:
            async with ClientSession(f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
                yield client
        finally:
            accepting.cancel()
            await runner.cleanup()


def talk(box: Sandbox, conversation: Talk, **options: Any) -> Any:
    async def run() -> Any:
        async with connected(box, **options) as client:
            return await conversation(client)

    return asyncio.run(run())


def post(box: Sandbox, path: str, body: Any, **options: Any) -> tuple[int, dict[str, Any]]:
    async def conversation(client: ClientSession) -> tuple[int, dict[str, Any]]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = await client.post(path, data=data)
        return response.status, await response.json()

    return talk(box, conversation, **options)


def fusion_run(box: Sandbox, code: str, **fields: Any) -> dict[str, Any]:
    status, response = post(box, "/run_code", {"code": code, "language": "python", **fields})
    assert status == 200, response
    return response


async def until(client: ClientSession, **state: int) -> None:
    """Wait until `/health` shows the numbers of `state`."""
    deadline = time.monotonic() + 10
    while True:
        health = await (await client.get("/health")).json()
        if state.items() <= health.items():
            return
        assert time.monotonic() < deadline, health
        await asyncio.sleep(0.01)


async def metric(client: ClientSession, series: str) -> float:
    text = await (await client.get("/metrics")).text()
    return float(re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)[1])


@pytest.fixture
def one_worker() -> Iterator[Sandbox]:
    with Sandbox(SHORT.model_copy(update={"workers": 1})) as sandbox:
        yield sandbox


class TestSandboxFusionsSchema:
    @pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange["name"])
    def test_a_recorded_request_is_answered_as_recorded(self, box: Sandbox, exchange: dict[str, Any]) -> None:
        status, response = post(box, "/run_code", exchange["request"])
        assert status == 200
        assert response["run_result"].pop("execution_time") > 0
        del exchange["response"]["run_result"]["execution_time"]
        assert response == exchange["response"]

    def test_an_exception_is_a_failed_run_that_finished(self, box: Sandbox) -> None:
        response = fusion_run(box, "assert 1 == 2")
        assert response["status"] == "Failed"
        assert response["run_result"]["status"] == "Finished"
        assert response["run_result"]["return_code"] == 1
        assert response["run_result"]["stderr"].endswith("AssertionError\n")

    def test_a_signal_is_a_negative_return_code(self, box: Sandbox) -> None:
        response = fusion_run(box, "import os; os.kill(os.getpid(), 11)")
        assert (response["status"], response["run_result"]["return_code"]) == ("Failed", -11)

    def test_a_memory_limit_is_a_failed_run_that_says_so(self, box: Sandbox) -> None:
        reason = "MemoryLimitExceeded: the code needed more than 64 MiB of memory\n"
        response = fusion_run(box, "data = bytearray(100 << 20)", memory_limit_MB=64)
        assert (response["status"], response["run_result"]["status"]) == ("Failed", "Finished")
        assert response["run_result"]["stderr"].endswith(reason)
        assert fusion_run(box, "data = bytearray(100 << 20)", memory_limit_MB=-1)["status"] == "Success"

    def test_an_output_limit_is_a_failed_run_that_says_so(self, box: Sandbox) -> None:
        response = fusion_run(box, "while True: print('x' * 10 ** 6)")
        assert (response["status"], response["run_result"]["status"]) == ("Failed", "Finished")
        assert "OutputLimitExceeded" in response["run_result"]["stderr"]
        assert response["run_result"]["return_code"] != 0

    def test_a_megabyte_of_output_is_whole(self, box: Sandbox) -> None:
        assert fusion_run(box, "print('x' * (10 ** 6))")["run_result"]["stdout"] == "x" * 10**6 + "\n"

    @pytest.mark.parametrize("status", [CallStatus.SANDBOX_ERROR, CallStatus.OVERLOAD])
    def test_a_failure_of_the_sandbox_is_retried_by_verl(self, status: CallStatus) -> None:
        code, response = fusion.answer(Result(status, reason="it was lost"))
        assert code == 504
        assert (response["status"], response["message"], response["run_result"]) == (
            "SandboxError",
            "it was lost",
            None,
        )

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"language": "cpp"}, "language 'python' only, found 'cpp'"),
            ({"language": "pytest"}, "found 'pytest'"),
            ({"files": {"a.txt": "aGk="}}, "keeps no files"),
            ({"fetch_files": ["a.txt"]}, "keeps no files"),
        ],
    )
    def test_what_is_not_offered_is_no_fault_of_the_code(self, box: Sandbox, fields: dict, reason: str) -> None:
        response = fusion_run(box, "print(1)", **fields)
        assert (response["status"], response["run_result"]) == ("SandboxError", None)
        assert reason in response["message"]

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"language": "python"}, ["body", "code"]),
            ({"code": "1", "language": "python", "run_timeout": 0}, ["body", "run_timeout"]),
            ({"code": "1", "language": "python", "stdin": 5}, ["body", "stdin"]),
            (b"{", ["body"]),
        ],
    )
    def test_a_wrong_request_is_answered_as_fastapi_does(self, box: Sandbox, body: Any, field: list[str]) -> None:
        status, response = post(box, "/run_code", body)
        assert status == 422
        assert response["detail"][0]["loc"] == field
        assert response["detail"][0]["msg"]


class TestOurOwnRoute:
    def test_it_answers_with_the_whole_result(self, box: Sandbox) -> None:
        status, response = post(box, "/v1/run", {"code": "print(input())\n6 * 7", "stdin": "hi", "echo": True})
        assert status == 200
        assert set(response) == {field for field in Result.__dataclass_fields__} | {"text"}
        assert (response["status"], response["stdout"], response["text"]) == ("ok", "hi\n42\n", "hi\n42")
        assert response["wall_s"] > 0 and response["peak_bytes"] > 0

    def test_limits_that_are_left_out_are_the_servers(self, box: Sandbox) -> None:
        _, response = post(box, "/v1/run", {"code": "while True: pass", "limits": {"idle_seconds": 3.0}})
        assert response["status"] == "time_limit"
        assert f"{SHORT.cpu_seconds:g} s of CPU time" in response["reason"]
        _, response = post(box, "/v1/run", {"code": "while True: pass", "limits": {"cpu_seconds": 0.1}})
        assert "0.1 s of CPU time" in response["reason"]

    def test_the_key_seeds_what_is_random_as_in_python(self, box: Sandbox) -> None:
        code = "import random; print(random.random())"
        _, response = post(box, "/v1/run", {"code": code, "key": ["seed", 0]})
        assert response["stdout"] == box.run_blocking(code, key=("seed", 0)).stdout
        assert response["stdout"] != box.run_blocking(code).stdout

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ({}, "code: field required"),
            ({"code": 1}, "code: input should be a valid string, found 1"),
            ({"code": "1", "limits": {"cpu_seconds": 0}}, "limits.cpu_seconds: input should be greater than"),
            ({"code": "1", "limits": {"cpu": 1}}, "limits.cpu: extra inputs are not permitted"),
            ({"code": "1", "cod": 1}, "takes a JSON object with code, stdin, echo, key, limits"),
            ([1], "the body: input should be an object"),
            (b'{"code', "the body: invalid JSON"),
            (b'{"code": "\\ud800"}', "the body: invalid JSON"),
            (b'{"code": "1", "key": ' + b"[" * 10**5, "the body: invalid JSON"),
        ],
    )
    def test_a_wrong_request_gets_one_sentence(self, box: Sandbox, body: Any, words: str) -> None:
        status, response = post(box, "/v1/run", body)
        assert status == 400
        assert words in response["error"]
        assert "\n" not in response["error"]

    @settings(max_examples=30)
    @given(
        st.binary(max_size=200)
        | st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda values: (
                st.lists(values) | st.dictionaries(st.sampled_from(["code", "key", "limits", "stdin", "x"]), values)
            ),
        )
    )
    def test_nothing_that_is_sent_breaks_it(self, box: Sandbox, body: Any) -> None:
        assert post(box, "/v1/run", body)[0] in (200, 400)
        assert post(box, "/run_code", body)[0] in (200, 422)

    def test_a_body_beyond_the_limit_is_refused(self, box: Sandbox) -> None:
        status, response = post(box, "/v1/run", b" " * (17 << 20))
        assert (status, response["error"]) == (413, "the body is larger than 16 MiB, the most that is read")

    def test_other_addresses_and_methods_are_named(self, box: Sandbox) -> None:
        async def conversation(client: ClientSession) -> list[tuple[int, str]]:
            responses = [await client.get("/run"), await client.get("/run_code")]
            return [(response.status, (await response.json())["error"]) for response in responses]

        unknown, wrong_method = talk(box, conversation)
        assert unknown[0] == 404 and "there is no /run" in unknown[1]
        assert wrong_method == (405, "/run_code takes POST, found GET")


class TestBackPressure:
    def test_beyond_the_queue_requests_are_refused_at_once(self, one_worker: Sandbox) -> None:
        async def conversation(client: ClientSession) -> None:
            calls = [asyncio.create_task(client.post("/v1/run", json=FOREVER)) for _ in range(2)]
            await until(client, running=1, waiting=1)

            refused = await client.post("/run_code", json={"code": "1", "language": "python"})
            assert refused.status == 504
            body = await refused.json()
            assert (body["status"], body["message"]) == (
                "SandboxError",
                "1 requests are waiting, the most that may: send this one again later",
            )
            refused = await client.post("/v1/run", json={"code": "1"})
            assert refused.status == 429
            assert int(refused.headers["Retry-After"]) > 0
            assert await metric(client, 'retool_sandbox_refused_total{reason="queue_full"}') == 2
            assert await metric(client, "retool_sandbox_waiting") == 1

            for call in calls:
                call.cancel()
            await until(client, running=0, waiting=0)
            assert (await client.post("/v1/run", json={"code": "1"})).status == 200

        talk(one_worker, conversation, queue=1)

    def test_without_a_queue_as_many_run_as_there_are_workers(self, one_worker: Sandbox) -> None:
        assert post(one_worker, "/v1/run", {"code": "print(1)"}, queue=0)[0] == 200

    def test_trajectories_take_turns(self, one_worker: Sandbox) -> None:
        async def conversation(client: ClientSession) -> list[str]:
            order: list[str] = []

            async def call(trajectory: str) -> None:
                body = {"code": "import time; time.sleep(0.05)"}
                response = await client.post("/v1/run", json=body, headers={"X-Trajectory-Id": trajectory})
                assert (await response.json())["status"] == "ok"
                order.append(trajectory)

            many = [asyncio.create_task(call("many")) for _ in range(8)]
            await until(client, running=1, waiting=7)
            await asyncio.gather(call("few"), *many)
            return order

        assert "few" in talk(one_worker, conversation)[:4]

    def test_a_client_that_goes_away_takes_its_execution_along(self, one_worker: Sandbox) -> None:
        async def conversation(client: ClientSession) -> None:
            call = asyncio.create_task(client.post("/v1/run", json=FOREVER))
            await until(client, running=1)
            call.cancel()
            await until(client, running=0)
            assert await metric(client, "retool_sandbox_abandoned_total") == 1
            response = await asyncio.wait_for(client.post("/v1/run", json={"code": "print(1)"}), 5)
            assert (await response.json())["text"] == "1"

        talk(one_worker, conversation)


class TestWhoMayAsk:
    @pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer", "Basic secret", "secret", "Bearer sécret"])
    def test_with_a_token_others_are_refused(self, box: Sandbox, header: str | None) -> None:
        async def conversation(client: ClientSession) -> None:
            headers = {} if header is None else {"Authorization": header}
            for method, path in (("POST", "/run_code"), ("POST", "/v1/run"), ("GET", "/metrics"), ("GET", "/none")):
                response = await client.request(method, path, headers=headers)
                assert response.status == 401
                assert response.headers["WWW-Authenticate"] == "Bearer"
                assert "Authorization: Bearer" in (await response.json())["error"]

        talk(box, conversation, token="secret")

    def test_the_token_opens_and_health_needs_none(self, box: Sandbox) -> None:
        async def conversation(client: ClientSession) -> list[int]:
            headers = {"Authorization": "Bearer secret"}
            run = await client.post("/v1/run", json={"code": "1"}, headers=headers)
            return [run.status, (await client.get("/health")).status]

        assert talk(box, conversation, token="secret") == [200, 200]


def test_health_says_what_contains_the_code(box: Sandbox) -> None:
    async def conversation(client: ClientSession) -> dict[str, Any]:
        return await (await client.get("/health")).json()

    health = talk(box, conversation)
    assert (health["status"], health["workers"]) == ("ok", SHORT.workers)
    assert health["isolation"]


def test_metrics_count_verdicts_and_time(box: Sandbox) -> None:
    async def conversation(client: ClientSession) -> None:
        assert await metric(client, 'retool_sandbox_executions_total{status="error"}') == 0
        for code in ("1", "1", "1 / 0"):
            await client.post("/v1/run", json={"code": code})
        assert await metric(client, 'retool_sandbox_executions_total{status="ok"}') == 2
        assert await metric(client, 'retool_sandbox_executions_total{status="error"}') == 1
        assert await metric(client, "retool_sandbox_execution_seconds_count") == 3
        assert await metric(client, "retool_sandbox_queue_seconds_count") == 3
        assert 0 < await metric(client, "retool_sandbox_execution_seconds_sum") < 3
        assert await metric(client, 'retool_sandbox_queue_seconds_bucket{le="+Inf"}') == 3
        assert await metric(client, "retool_sandbox_workers") == SHORT.workers

    talk(box, conversation)


@contextmanager
def serving(*options: str, open_files: int | None = None, **environment: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """`retool sandbox serve` as a process of its own, and where it listens."""
    command = [sys.executable, "-m", "retool", "sandbox", "serve", "--port", "0", "--workers", "1", *options]
    limit = (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))) if open_files else None
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | environment, preexec_fn=limit
    ) as process:
        try:
            line = process.stderr.readline()
            yield process, re.match(r"serving on (http://\S+),", line)[1]
        finally:
            process.kill()


def test_more_connections_than_descriptors_are_served_in_turn_and_in_silence() -> None:
    async def conversation(url: str) -> list[str]:
        async with ClientSession(url, connector=TCPConnector(limit=0)) as client:

            async def call(number: int) -> str:
                async with client.post("/v1/run", json={"code": f"print({number})"}) as response:
                    return (await response.json())["text"]

            return await asyncio.gather(*map(call, range(150)))

    with serving(open_files=100) as (process, url):
        assert asyncio.run(conversation(url)) == [str(number) for number in range(150)]
        process.terminate()
        assert process.wait(5) == 0
        assert process.stderr.read() == ""


class TestTheEnd:
    @pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
    def test_what_runs_is_ended_and_nothing_new_begun(self, how: signal.Signals) -> None:
        async def conversation(process: subprocess.Popen, url: str) -> None:
            async with ClientSession(url) as client:
                code = "import time; time.sleep(1); print('done')"
                calls = [asyncio.create_task(client.post("/v1/run", json={"code": code})) for _ in range(2)]
                await until(client, running=1, waiting=1)
                process.send_signal(how)
                while (health := await client.get("/health")).status == 200:
                    await asyncio.sleep(0.01)
                assert (health.status, (await health.json())["status"]) == (503, "draining")
                late = await client.post("/run_code", json={"code": "1", "language": "python"})
                assert (late.status, (await late.json())["status"]) == (504, "SandboxError")
                late = await client.post("/v1/run", json={"code": "1"})
                assert (late.status, late.headers["Retry-After"]) == (503, "1")
                for response in await asyncio.gather(*calls):
                    assert (await response.json())["text"] == "done"

        with serving() as (process, url):
            left = descendants(process.pid)
            assert left
            asyncio.run(conversation(process, url))
            assert process.wait(5) == 0
            assert process.stderr.read() == ""
        assert not any(Path(f"/proc/{pid}").exists() for pid in left)

    @pytest.mark.parametrize("signals", [1, 2])
    def test_what_does_not_end_is_cut_off_and_told(self, signals: int) -> None:
        """After the time for it, or at the second signal."""

        async def conversation(process: subprocess.Popen, url: str) -> None:
            async with ClientSession(url) as client:
                call = asyncio.create_task(client.post("/v1/run", json=FOREVER))
                await until(client, running=1)
                for _ in range(signals):
                    process.send_signal(signal.SIGTERM)
                    await asyncio.sleep(0.1)
                response = await call
                assert (response.status, (await response.json())["error"]) == (
                    503,
                    "the sandbox was closed while code was running",
                )

        with serving("--drain", "0.3" if signals == 1 else "60") as (process, url):
            asyncio.run(conversation(process, url))
            assert process.wait(5) == 0

    def test_the_token_may_come_from_the_environment(self) -> None:
        async def conversation(url: str) -> list[int]:
            async with ClientSession(url) as client:
                headers = {"Authorization": "Bearer secret"}
                return [(await client.get("/metrics", headers=given)).status for given in ({}, headers)]

        with serving(RETOOL_SANDBOX_TOKEN="secret") as (_, url):
            assert asyncio.run(conversation(url)) == [401, 200]
