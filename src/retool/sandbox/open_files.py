"""How many files a process may open at once; each execution and each connection takes some."""

import resource

_ENOUGH = 1 << 16


def lift_limit() -> int:
    """Lift the soft limit of this process as far as the hard one permits; returns it, 65,536 at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return most
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most
