"""From a preset's name or a YAML file, plus dotted overrides, to a checked config.

Later layers win: defaults < preset < file < overrides. Every error is one sentence that names the key, the value and
what is allowed.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from retool.config.base import Section
from retool.config.notation import dump, parse
from retool.errors import UsageError

SchemaT = TypeVar("SchemaT", bound=Section)


def presets() -> list[str]:
    """Names of the presets that come with the package."""
    folder = resources.files("retool.config") / "presets"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_config(schema: type[SchemaT], source: str | None = None, overrides: Sequence[str] = ()) -> SchemaT:
    """Load and check a config. `source` is a preset's name or the path of a YAML file (which may start from a preset
    with a top-level `preset: NAME`); `overrides` are `dotted.key=value`, the value read as YAML. Raises UsageError."""
    values = _read_source(schema, source) if source else {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise UsageError(f"an override has the form key=value, such as rl.steps=20; found {override!r}")
        _check_keys(schema, _nest(key, None), "the command line")
        values = _merge(values, _nest(key, parse(text, f"the value of {key}")))
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise UsageError(_explain(schema, error.errors()[0])) from None


def dump_config(config: Section) -> str:
    """The resolved config as YAML; loading it gives the same config."""
    return dump(config.model_dump(mode="json"))


def leaf_keys(schema: type[BaseModel]) -> list[str]:
    """Dotted names of all settings."""
    return [key for key, is_leaf in _keys(schema) if is_leaf]


def _keys(schema: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, bool]]:
    for name, field in schema.model_fields.items():
        section = _section(field.annotation)
        yield prefix + name, section is None
        if section is not None:
            yield from _keys(section, f"{prefix}{name}.")


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, if it does; one that may be null is one too."""
    found = [option for option in _options(annotation) if isinstance(option, type) and issubclass(option, BaseModel)]
    return found[0] if found else None


def _read_source(schema: type[Section], source: str) -> dict[str, Any]:
    if source in presets():
        return _read_yaml((resources.files("retool.config") / "presets" / f"{source}.yaml").read_text(), source)
    path = Path(source)
    if not path.is_file():
        hint = f"there is no preset and no file {source!r}; presets are {', '.join(presets())}"
        close = difflib.get_close_matches(source, presets(), 1)
        raise UsageError(hint + (f"; did you mean {close[0]!r}?" if close else ""))
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{source} must be UTF-8 text: {error}") from error
    values = _read_yaml(text, source)
    preset = values.pop("preset", None)
    _check_keys(schema, values, source)
    if preset is None:
        return values
    if preset not in presets():
        raise UsageError(f"{source} starts from the unknown preset {preset!r}; presets are {', '.join(presets())}")
    return _merge(_read_source(schema, preset), values)


def _read_yaml(text: str, name: str) -> dict[str, Any]:
    values = parse(text, name)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(f"{name} must hold settings as `key: value`, found {type(values).__name__}")
    return values


def _nest(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _check_keys(schema: type[BaseModel], values: Mapping[str, Any], where: str) -> None:
    """Unknown keys are found here, over the whole file, so that the message can say where and name the nearest one."""
    key = next(_unknown_keys(schema, values, where), None)
    if key is not None:
        raise UsageError(_unknown(schema, key, where))


def _unknown_keys(schema: type[BaseModel], values: Mapping[str, Any], where: str, prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        if name not in schema.model_fields:
            if isinstance(value, dict) and len(value) == 1:  # an override such as rl.optim.lr=1: show all of the key
                name = f"{name}.{next(iter(value))}"
            yield f"{prefix}{name}"
            continue
        section = _section(schema.model_fields[name].annotation)
        if section is not None and isinstance(value, dict):
            yield from _unknown_keys(section, value, where, f"{prefix}{name}.")
        elif isinstance(value, dict) and where == "the command line" and _takes_no_mapping(schema, name):
            yield f"{prefix}{name}.{next(iter(value))}"


def _takes_no_mapping(schema: type[BaseModel], name: str) -> bool:
    return not any(typing.get_origin(option) is dict for option in _options(schema.model_fields[name].annotation))


def _options(annotation: Any) -> Iterator[Any]:
    """The types that an annotation allows, one by one."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) in (typing.Union, typing.Annotated):
        parts = typing.get_args(annotation)
        for part in parts[:1] if typing.get_origin(annotation) is typing.Annotated else parts:
            yield from _options(part)
    else:
        yield annotation


def _unknown(schema: type[BaseModel], key: str, where: str) -> str:
    known = [name for name, _ in _keys(schema)]
    last = key.rsplit(".", 1)[-1]
    by_leaf = [name for name in known if name.rsplit(".", 1)[-1] == last]
    close = difflib.get_close_matches(key, by_leaf or known, 1, cutoff=0.0 if by_leaf else 0.5)
    advice = f"; did you mean {close[0]!r}?" if close else f"; the top level has {', '.join(schema.model_fields)}"
    return f"unknown config key {key!r} in {where}{advice}"


_EXPECTED = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "dict_type": "a mapping",
    "model_type": "a section with settings of its own",
    "model_attributes_type": "a section with settings of its own",
    "tuple_type": "a list",
    "missing": "given",
    "finite_number": "a finite number",
    "choice": "one name, or one with settings such as {name: {setting: 1.0}}",
    "choices": "a name, a list of names, or names with settings such as {name: {setting: 1.0}}",
}
_BOUNDS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def _explain(schema: type[BaseModel], error: ErrorDetails) -> str:
    key = ".".join(str(part) for part in error["loc"])
    kind, found, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown(schema, key, "the config")
    if kind == "value_error":  # a check of the schema's own, which is a sentence already
        return str(context["error"])
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        expected = f"{words} {context[name]}"
    elif kind == "literal_error":
        expected = f"one of {context['expected']}"
    elif kind == "too_long":
        expected = f"a list of {context['max_length']}"
    else:
        expected = _EXPECTED.get(kind, error["msg"])
    return f"{key} must be {expected}, found {found!r}"
