"""The life of an interpreter that was started for one execution: `child` without a zygote and without containment."""

import os
import resource
import signal
from typing import NoReturn

from retool.sandbox.interpreter import child, entropy, program
from retool.sandbox.interpreter.job import EXCEPTION, READY, Terms, decode_code


def main() -> NoReturn:
    """Be the process of one execution."""
    status = EXCEPTION
    try:
        program.prepare_interpreter()
        entropy.install()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        os.closerange(3, 4096)
        os.write(1, READY)
        child.read_exactly(1)  # there is nothing to prepare
        terms = Terms.read(child.read_exactly)
        code = decode_code(child.read_exactly(terms.code_bytes))
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu_seconds = int(used.ru_utime + used.ru_stime) + terms.cpu_seconds + 2
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        entropy.seed(terms.seed)
        status = child.run_program(code, terms.echo)
    finally:
        child.end(status)
