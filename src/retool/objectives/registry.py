"""One register for what a config chooses by name: `@register("reward", "brief")` above a function adds it. The kind
fixes its positional arguments, those of the built-in ones; its keyword-only arguments are settings."""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from importlib import import_module

from retool.errors import UsageError

_MODULES = {"advantage": "advantages", "policy_loss": "losses", "aggregation": "aggregation", "kl": "divergence"}
_MODULES |= {"correction": "off_policy", "reward": "rewards", "filter": "selection", "mask": "selection"}
_REGISTERED: dict[str, dict[str, Callable]] = {kind: {} for kind in _MODULES}


def register(kind: str, name: str) -> Callable[[Callable], Callable]:
    """Decorator: the function can be chosen as `name`. Raises UsageError if another one has that name already."""

    def add(function: Callable) -> Callable:
        other = known(kind).get(name, function)
        if (other.__module__, other.__qualname__) != (function.__module__, function.__qualname__):
            raise UsageError(f"{function.__module__} registers a {kind} {name!r}; choose another name: it is taken")
        return known(kind).setdefault(name, function)

    return add


def known(kind: str) -> dict[str, Callable]:
    """All functions of a kind by name; the module with the built-in ones is imported first."""
    import_module(f"retool.objectives.{_choose('kind', kind, _MODULES)}")
    return _REGISTERED[kind]


def lookup(kind: str, name: str, settings: Mapping[str, object] = {}, **known_values: object) -> Callable:
    """The function of that name, its settings bound. Raises UsageError for a name or a setting that there is not.

    `known_values` are for settings of these names, if there are any, that are not set: such as a run's `max_tokens`.
    """
    function = _choose(kind, name, known(kind))
    options = {p.name: p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}
    for key in settings:
        _choose(f"setting of {kind} {name!r}:", key, options)
    settings = {key: value for key, value in known_values.items() if key in options} | dict(settings)
    if missing := [key for key, p in options.items() if p.default is p.empty and key not in settings]:
        raise UsageError(f"the {kind} {name!r} needs the setting {missing[0]!r}")
    return partial(function, **settings)


def _choose(what: str, name: str, options: dict) -> object:
    if name not in options:
        nearest = get_close_matches(name, options) or sorted(options) or ["none"]
        raise UsageError(f"unknown {what} {name!r}; expected {' or '.join(nearest)}")
    return options[name]
