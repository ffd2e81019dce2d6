"""Where the sandbox has a root of its own, each execution has a folder to write in: empty, small, and nobody else's."""

import asyncio
import textwrap

import pytest
from profiles import SAME_UID_FOR_ALL

from conftest import sandbox_in
from retool.sandbox import Limits, Result, Sandbox

MIB = 1 << 20
LIMITS = Limits(cpu_seconds=2.0, memory_mib=64)

LEAVINGS = {
    "files": "open('f', 'w').write('x'); open('.f', 'w'); open('h', 'wb').truncate(1 << 40); f = open('g', 'w')",
    "a deep tree": "for _ in range(500): os.mkdir('d'); os.chdir('d')\nopen('file', 'w').write('x')",
    "a tree as deep as there is room": "try:\n  while True: os.mkdir('d'); os.chdir('d')\nexcept OSError: pass",
    "a tree with long names": "for _ in range(60): os.mkdir('d' * 255); os.chdir('d' * 255)",
    "many files": "try:\n  for n in range(5000): open(str(n), 'w').close()\nexcept OSError: pass",
    "folders that nobody may enter": (
        "os.mkdir('d'); open('d/f', 'w').close(); os.mkdir('d/e', 0); os.mkdir('e', 0)\n"
        "os.umask(0o777); os.mkdir('g'); open('f', 'w').close()"
    ),
    "links": (
        "os.symlink('/', 'root'); os.symlink(os.path.dirname(os.__file__), 'library')\n"
        "os.mkdir('d'); os.symlink('..', 'd/up'); os.symlink('self', 'self')"
    ),
    "odd names": "for n in (b'\\xff\\xfe', b'\\n', b'-rf', '…'.encode()): open(n, 'w').close(); os.mkdir(n + b'd')",
    "a full folder": "f = open('f', 'wb', 0)\ntry:\n  while True: f.write(bytes(1 << 16))\nexcept OSError: pass",
    "a working directory that is gone": "os.mkdir('d'); os.chdir('d'); os.rmdir('../d')",
}


@pytest.fixture
def roomy(contained: Sandbox) -> Sandbox:
    if not contained.isolation["private_root"]:
        pytest.skip("there is no room to write in here")
    return contained


def run(box: Sandbox, code: str) -> Result:
    return box.run_blocking("import os\n" + textwrap.dedent(code), LIMITS)


def run_in_every_slot(box: Sandbox, code: str) -> list[Result]:
    """The results of `code` in as many executions as it takes to be in each of the sandbox's folders."""

    async def run_all() -> list[Result]:
        return await asyncio.gather(*(box.run(code, LIMITS) for _ in range(3 * box.workers)))

    return asyncio.run(run_all())


def test_files_can_be_written_and_read(roomy: Sandbox) -> None:
    code = """
        import tempfile, pathlib
        open('a.txt', 'w').write('first')
        os.mkdir('d'); os.rename('a.txt', 'd/b.txt'); os.symlink('b.txt', 'd/c.txt')
        with open('d/c.txt', 'a') as file: file.write(' second')
        print(pathlib.Path('d/b.txt').read_text(), sorted(os.listdir('d')))
        with tempfile.TemporaryFile() as file:
            file.write(b'third'); file.seek(0); print(file.read())
        with tempfile.TemporaryDirectory() as folder: print(os.listdir(folder))
        with tempfile.NamedTemporaryFile('w+') as file: file.write('x'); file.flush(); print(os.path.getsize(file.name))
        print(os.path.samefile(tempfile.gettempdir(), '.'))
    """
    assert run(roomy, code).text.splitlines() == ["first second ['b.txt', 'c.txt']", "b'third'", "[]", "1", "True"]


@pytest.mark.parametrize("leavings", LEAVINGS)
def test_the_next_execution_finds_the_folder_empty(roomy: Sandbox, leavings: str) -> None:
    for result in run_in_every_slot(roomy, f"import os\n{LEAVINGS[leavings]}"):
        assert result.status == "ok", result
    assert {result.text for result in run_in_every_slot(roomy, "import os; print(os.listdir())")} == {"[]"}


def test_sixteen_mebibytes_are_the_end_of_it(roomy: Sandbox) -> None:
    code = "with open('x', 'wb', buffering=0) as file:\n  while True: file.write(bytes(1 << 20))"
    result = run(roomy, code)
    assert result.status == "error"
    assert "OSError: [Errno 28] No space left on device" in result.text
    assert run(roomy, "open('x', 'wb').write(bytes(17 << 20))").status == "error"
    sizes = {result.text for result in run_in_every_slot(roomy, "print(open('x', 'wb').write(bytes(15 << 20)))")}
    assert sizes == {str(15 * MIB)}


def test_a_thousand_files_are_the_end_of_it(roomy: Sandbox) -> None:
    result = run(roomy, "for n in range(10 ** 6): open(str(n), 'w').close()")
    assert result.status == "error"
    assert "No space left on device: '10" in result.text


def test_no_program_can_be_run_from_there(roomy: Sandbox) -> None:
    code = """
        import ctypes, shutil, sysconfig, _ctypes
        shutil.copyfile(_ctypes.__file__, 'library.so')
        ctypes.CDLL(os.path.abspath('library.so'))
    """
    assert "failed to map segment" in run(roomy, code).text


SPY = """
    import random
    here = os.getcwd()
    def entries(folder):
        try: return [os.path.join(folder, name) for name in os.listdir(folder)]
        except OSError: return []
    source = random.Random(1 << 64)
    guesses = [source.randbytes(16).hex() for _ in range(200)]
    places = entries('..') + entries('/') + entries('/scratch')
    places += [os.path.join(os.path.dirname(here), name) for name in guesses]
    reached = []
    for place in places:
        try: os.chdir(place)
        except OSError: continue
        if os.getcwd() != here and os.access('.', os.W_OK): reached.append(os.getcwd())
    print(reached)
"""


def test_the_folders_of_others_cannot_be_found(roomy: Sandbox) -> None:
    """Neither by looking around, nor by asking the execution's own randomness for the names that the sandbox drew."""
    assert run(roomy, SPY).text == "[]"


def test_the_folders_of_others_cannot_be_found_where_all_have_one_uid_and_there_is_no_landlock() -> None:
    with sandbox_in(SAME_UID_FOR_ALL) as box:
        assert run(box, SPY).text == "[]"


def test_without_a_root_of_its_own_nothing_can_be_written(contained: Sandbox) -> None:
    if contained.isolation["private_root"]:
        pytest.skip("there is room to write in here")
    result = contained.run_blocking("open('x', 'w')")
    assert result.status == "error"
    assert "PermissionError" in result.text
    result = contained.run_blocking("import tempfile; tempfile.TemporaryFile()")
    assert "FileNotFoundError: [Errno 2] No usable temporary directory found" in result.text
