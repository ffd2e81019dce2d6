"""The same code and key print the same, whatever else runs; another key, other random numbers."""

import asyncio
import time

import pytest

from retool.sandbox import Result, Sandbox, SandboxConfig

RANDOM = {
    "random": "import random; print(random.random(), random.sample(range(100), 5), random.gauss(0, 1))",
    "random generator": "import random; print(random.Random().random(), random.Random(None).getrandbits(64))",
    "random of the system": "import random as r; print(r.SystemRandom().random(), r.SystemRandom().choice('abcd'))",
    "reseeded": "import random; random.seed(); print(random.random())",
    "reseeded by a name of its own": "from random import seed, random; seed(None); print(random())",
    "urandom": "import os; print(os.urandom(16).hex())",
    "secrets": "import secrets; print(secrets.token_hex(8), secrets.randbelow(10 ** 9), secrets.choice('abc'))",
    "uuid": "import uuid; print(uuid.uuid4())",
    "shuffled": "import random; x = list(range(50)); random.shuffle(x); print(x)",
    "temporary names": "import tempfile; print(next(tempfile._get_candidate_names()))",
}
RANDOM_OF_NUMPY = {
    "numpy": "import numpy as np; print(np.random.rand(3), np.random.permutation(9))",
    "numpy generator": "import numpy as np; print(np.random.default_rng().random(3))",
    "numpy legacy generator": "import numpy as np; print(np.random.RandomState().rand(3))",
    "numpy seed sequence": "import numpy as np; print(np.random.SeedSequence().entropy)",
    "numpy bit generator": "import numpy as np; print(np.random.PCG64().random_raw(2))",
}
FIXED = {
    "sets": "print({'a', 'b', 'c', 'd', 'e'}, hash('x'), hash(b'x'), hash(None) is hash(None))",
    "sympy": "import sympy as s; print(s.symbols('a:f'), s.Symbol('x') + s.Symbol('y') * 2, {s.Symbol('z'), s.pi})",
    "explicit seeds": "import random; random.seed(3); print(random.random(), random.Random(5).random())",
}
ADDRESSES = {
    "object": "print(object())",
    "many objects": "class A: pass\nprint([object() for _ in range(50)], [A() for _ in range(50)], lambda: 0)",
    "identities": "print(id(None), id([]), id({}), id('x' * 1000), id(1.5), id(print), id(bytearray(10 ** 6)))",
    "modules": "import math; print(print, math.__spec__.loader, id(math))",
    "functions": "def f(): pass\nprint(f, f.__code__, (x for x in 'a'))",
    "hash of an object": "print(hash(object()), {type(n): n for n in (1, 'a', None)})",
    "foreign memory": "import ctypes; print(ctypes.addressof(ctypes.create_string_buffer(10)))",
    "arrays": "import numpy; print(numpy.zeros(9).ctypes.data, numpy.zeros(10 ** 6).ctypes.data)",
    "expressions": "from sympy import *; x = Symbol('x'); r = solve(x**2 - 9 * x); print(id(r), id(r[0]), object())",
    "stack": "import ctypes; print(ctypes.cast(ctypes.pythonapi.Py_IsInitialized, ctypes.c_void_p))",
}
LONG_ENOUGH_TO_PREPARE = 0.1
OTHER_WORK = ("print(object())", "x = [object() for _ in range(10 ** 4)]", "1 / 0", "import json, re; re.compile('a+')")


def outputs(box: Sandbox, code: str, key: object, calls: int = 12) -> set[str]:
    """What `code` prints, called now and then, one after the other, and at once with others in between."""

    async def run() -> list[str]:
        mine = [box.run(code, key=key) for _ in range(calls)]
        others = [box.run(other, key=n) for n, other in enumerate(OTHER_WORK * 3)]
        pairs = [call for pair in zip(mine, others, strict=False) for call in pair]
        results = await asyncio.gather(*pairs)
        return [result.text for result in results[::2]]

    alone = []
    for pause in (0, 0, 0, LONG_ENOUGH_TO_PREPARE, LONG_ENOUGH_TO_PREPARE):
        time.sleep(pause)
        alone.append(box.run_blocking(code, key=key).text)
    return {*alone, *asyncio.run(run())}


@pytest.fixture(scope="module")
def another() -> Sandbox:
    with Sandbox(SandboxConfig(workers=1)) as sandbox:
        yield sandbox


@pytest.mark.parametrize("source", [*RANDOM, *FIXED, *RANDOM_OF_NUMPY])
def test_the_same_code_and_key_print_the_same(box: Sandbox, another: Sandbox, source: str) -> None:
    code = (RANDOM | FIXED | RANDOM_OF_NUMPY)[source]
    (here,) = outputs(box, code, ("seed", 7))
    assert here
    assert "Error" not in here
    assert another.run_blocking(code, key=("seed", 7)).text == here


@pytest.mark.parametrize("source", [*RANDOM, *RANDOM_OF_NUMPY])
def test_another_key_gives_other_random_numbers(box: Sandbox, source: str) -> None:
    code = (RANDOM | RANDOM_OF_NUMPY)[source]
    assert len({box.run_blocking(code, key=key).text for key in range(5)}) == 5


@pytest.mark.parametrize("source", ADDRESSES)
def test_addresses_are_the_same_each_time(box: Sandbox, source: str) -> None:
    if not box.isolation["fixed_addresses"]:
        pytest.skip("the system puts every process elsewhere")
    assert len(outputs(box, ADDRESSES[source], 1)) == 1


def test_code_that_comes_after_a_pause_finds_its_memory_prepared(box: Sandbox) -> None:
    code = "\n".join(
        [
            "import resource; before = resource.getrusage(0).ru_minflt",
            "from sympy import *; x = Symbol('x'); solve(x**2 - 9 * x + 20)",
            "print(resource.getrusage(0).ru_minflt - before)",
        ]
    )

    async def at_once() -> list[Result]:
        return await asyncio.gather(*(box.run(code) for _ in range(8)))

    faults_of_the_hurried = max(int(result.text) for result in asyncio.run(at_once()))
    time.sleep(LONG_ENOUGH_TO_PREPARE)
    assert int(box.run_blocking(code).text) < faults_of_the_hurried / 2


def test_randomness_is_fixed_wherever_the_sandbox_lives(contained: Sandbox) -> None:
    code = "; ".join(RANDOM[name] for name in ("random", "urandom", "secrets", "uuid"))
    assert len(outputs(contained, code, 3)) == 1


def test_random_numbers_are_no_worse_than_usual(box: Sandbox) -> None:
    """Two sources of the same execution do not repeat each other."""
    code = (
        "import os, random; print(len({os.urandom(8) for _ in range(99)} | {random.randbytes(8) for _ in range(99)}))"
    )
    assert box.run_blocking(code).text == "198"


def test_a_size_that_makes_no_sense_is_refused_as_ever(box: Sandbox) -> None:
    assert "ValueError: negative argument not allowed" in box.run_blocking("import os\nos.urandom(-1)").stderr
