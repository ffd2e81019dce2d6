"""How settings are written: YAML, without the parts of it that surprise."""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.composer import ComposerError

from retool.errors import UsageError

_DEEPEST = 50  # levels of nesting: ten times what any setting needs, and far from Python's own limit


class _Loader(yaml.SafeLoader):
    """YAML in which `2e-6` is a number (YAML 1.1 wants `2.0e-6`), `yes` and `off` are texts, and so are dates.

    Refused are a key that is given twice, of which PyYAML would keep the last, and what nests too deeply or in itself.
    """

    _level = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        place = self.peek_event().start_mark
        if self._level == _DEEPEST:
            raise ComposerError(None, None, f"found more than {_DEEPEST} levels of nesting", place)
        self._level += 1
        node = super().compose_node(parent, index)
        self._level -= 1
        if node.end_mark is None:  # an alias of a node that has not ended yet
            raise ComposerError(None, None, "found an alias inside what it stands for", place)
        return node

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in keys:
                    raise ComposerError(None, None, f"the key {key.value!r} is given twice", key.start_mark)
                keys.add((key.tag, key.value))
        return node


class _Dumper(yaml.SafeDumper):
    """Puts quotes around each text that `_Loader`, or another reader of YAML, would take for something else."""

    def represent_text(self, text: str) -> yaml.Node:
        # U+0085, a line break in YAML 1.1, reads back as a space unless it is escaped.
        return self.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "\x85" in text else None)


_Dumper.add_representer(str, _Dumper.represent_text)
_READ_OTHERWISE = ("tag:yaml.org,2002:float", "tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp")
_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag not in _READ_OTHERWISE]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d+\.\d*([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(inf|nan))$"),
        list("-+0123456789."),
    )
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|false|True|False)$"), list("tTfF"))


def parse(text: str, name: str) -> Any:
    """The value that `text` writes. Raises UsageError naming `name`, the file or the key, and the line."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise UsageError(f"{name}{where} is not valid YAML for a config: {problem}") from None
    except ValueError as error:  # such as an integer of more digits than Python reads
        raise UsageError(f"{name} holds a value that cannot be read: {error}") from None


def dump(values: Any) -> str:
    """`values` as text; parsing it gives the same values."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
