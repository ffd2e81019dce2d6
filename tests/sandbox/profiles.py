"""The places where the sandbox has to live, as far as this machine can play them."""

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from retool.sandbox.containment import landlock

_FOLDER = Path(__file__).parent
_SOURCES = _FOLDER.parents[1] / "src"
_SUPERVISOR = "from retool.sandbox.supervision.supervisor import main; main()"
_TRY_NAMESPACES = (
    "from retool.sandbox.containment import namespaces; print('mount' in namespaces.enter(lambda pid: None))"
)
_TRY_PYTHON = (
    "import sys; assert sys.version_info >= (3, 11); from retool.sandbox.supervision import supervisor; print(True)"
)


class Profile(NamedTuple):
    """`restriction` names the function of `restrictions` that a supervisor calls before it starts."""

    restriction: str
    isolation: dict[str, Any]
    """What of `Sandbox.isolation` follows from it, besides that nothing is weak."""

    @property
    def command(self) -> str:
        """The supervisor's program."""
        if self.restriction != "ordinary_user":
            return f"{self._restrict}; {_SUPERVISOR}"
        python = _interpreter_for_everybody()
        arguments = f"[{python!r}, '-P', '-c', {_SUPERVISOR!r}, *sys.argv[1:]]"
        return f"{self._restrict}; import os; os.execv({python!r}, {arguments})"

    def missing(self) -> str | None:
        """What this machine lacks for it; None when nothing."""
        if self.isolation.get("landlock", True) and not landlock.abi():
            return "the kernel has no Landlock"
        if self.isolation.get("private_root") and not _prints_true(f"{self._restrict}; {_TRY_NAMESPACES}"):
            return "the system permits no mount namespaces here"
        if self.restriction == "ordinary_user":
            if os.getuid() != 0:
                return "the tests run as an ordinary user anyway"
            if not _interpreter_for_everybody():
                return "no interpreter that everybody can run"
        return None

    @property
    def _restrict(self) -> str:
        return f"import sys; sys.path.append({str(_FOLDER)!r}); import restrictions; restrictions.{self.restriction}()"


@functools.cache
def _interpreter_for_everybody() -> str | None:
    restrict = Profile("ordinary_user", {})._restrict
    for python in (sys.executable, "/usr/bin/python3"):
        arguments = [python, "-P", "-c", _TRY_PYTHON]
        if _prints_true(f"{restrict}; import os; os.execv({python!r}, {arguments!r})"):
            return python
    return None


def _prints_true(program: str) -> bool:
    command = [sys.executable, "-P", "-c", program]
    environment = {"PYTHONPATH": str(_SOURCES)}
    return subprocess.run(command, env=environment, capture_output=True, check=False).stdout == b"True\n"


_NO_NAMESPACES = {"namespaces": [], "private_root": False}

PROFILES = {
    "everything": Profile("nothing", {}),
    "container": Profile("container", {**_NO_NAMESPACES, "fixed_addresses": False}),
    "user namespace": Profile("user_namespace", {"private_root": True}),
    "without Landlock": Profile("without_landlock", {"landlock": 0, "private_root": True}),
    "ordinary user": Profile("ordinary_user", {}),
}
SAME_UID_FOR_ALL = Profile("user_namespace_without_landlock", {"landlock": 0, "private_root": True})
"""A root of its own is all that keeps an execution from the files of the others."""

WITHOUT_QUESTIONS = Profile("without_questions", {})
"""Nobody can be asked about a process's calls, so that its end is known when it has ended and not before."""

FEW_OPEN_FILES = Profile("few_open_files", {})
"""Many executions at once would not find enough descriptors."""

TOO_WEAK = Profile("container_without_landlock", {})
