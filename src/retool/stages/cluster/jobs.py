"""A run as a Ray job, which goes on when the terminal that it was started from is closed."""

from __future__ import annotations

import asyncio
import shlex
import sys
from pathlib import Path

from retool.config.load import dump_config
from retool.config.schema import Config
from retool.errors import RetoolError, UsageError, first_line
from retool.files import publish
from retool.stages.cluster.launch import check, name_of
from retool.stages.progress import console

try:
    from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient
except ImportError as error:
    raise UsageError(f"Ray jobs need more of Ray ({error}): pip install 'retool[cluster]'") from error

_UNDER_WAY = (JobStatus.PENDING, JobStatus.RUNNING)


class JobFailed(RetoolError):
    """A job has ended with an exit code."""

    def __init__(self, job: str, details: JobDetails):
        reason = (details.message or "").partition(", last available logs")[0].strip()
        super().__init__(f"job {job} has ended: {reason or details.status.lower()}")
        code = details.driver_exit_code
        self.exit_code = code if code and code > 0 else 1  # below 0 it is a signal's


def run_as_job(config: Config, out: Path, address: str) -> None:
    """Submit `retool rl` with this config to the Ray cluster at `address` (`auto`, HOST:PORT, or its dashboard's URL),
    and show what it prints to its end; where that job is under way, only the latter.

    The job runs in this folder, which its nodes must see as they must see `out`. Raises RetoolError with the job's exit
    code where it fails.
    """
    check(config)
    try:
        client = JobSubmissionClient(None if address == "auto" else address)
    except (ConnectionError, RuntimeError) as error:
        reason = first_line(error)
        raise UsageError(
            f"no Ray cluster answers at --cluster {address}: {reason}; `ray start --head` starts one"
        ) from error
    out = out.absolute()
    before = _jobs_of(out, client)
    last = max(before, default=0)
    if last and before[last].status in _UNDER_WAY:
        job = f"{name_of(out)}-{last}"
        console.print(f"job {job} is under way; this is what it says")
    else:
        job = f"{name_of(out)}-{last + 1}"
        settings = out / "job.yaml"
        publish(settings, dump_config(config))
        command = shlex.join([sys.executable, "-m", "retool", "rl", str(settings), "--out", str(out)])
        client.submit_job(entrypoint=f"cd {shlex.quote(str(Path.cwd()))} && exec {command}", submission_id=job)
        console.print(
            f"job {job} is submitted; it goes on without this terminal, and the same command follows it again"
        )
    console.print(f"`ray job stop {job}` has it save what it has learned and end", soft_wrap=True)
    asyncio.run(_follow(client, job))
    details = client.get_job_info(job)
    if details.status is not JobStatus.SUCCEEDED:
        raise JobFailed(job, details)


def _jobs_of(out: Path, client: JobSubmissionClient) -> dict[int, JobDetails]:
    """Those that the run in `out` has had, by number.

    Of two that bear one name Ray takes the end of the first, heard of late, for the end of the second.
    """
    found = {}
    for details in client.list_jobs():
        name, _, number = (details.submission_id or "").rpartition("-")
        if name == name_of(out):
            found[int(number)] = details
    return found


async def _follow(client: JobSubmissionClient, job: str) -> None:
    async for lines in client.tail_job_logs(job):
        print(lines, end="", file=sys.stderr, flush=True)
