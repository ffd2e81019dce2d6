"""What every part's config is made of."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """A section of the config: unknown keys, wrong types, infinity and nan are errors, and a value never changes."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, values: Any) -> Any:
        """YAML has lists only; fixed-length settings are tuples here."""
        if not isinstance(values, dict):
            return values
        return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def chosen(choices: Any) -> dict[str, dict[str, Any]]:
    """The names of a `Choice` or of `Choices`, in order, each with its settings."""
    if isinstance(choices, dict):
        return {name: settings or {} for name, settings in choices.items()}
    return {name: {} for name in ([choices] if isinstance(choices, str) else choices or ())}


def _check_choice(value: Any) -> Any:
    if isinstance(value, list | tuple) or (isinstance(value, dict) and len(value) != 1):
        raise PydanticCustomError("choice", "not one name")
    return _check_choices(value)


def _check_choices(value: Any) -> Any:
    names = [value] if isinstance(value, str) else value
    settings = value.values() if isinstance(value, dict) else ()
    if (
        not isinstance(value, str | list | tuple | dict)
        or not all(isinstance(name, str) for name in names)
        or not all(isinstance(setting, dict | None) for setting in settings)
    ):
        raise PydanticCustomError("choices", "not names")
    return value


Choice = Annotated[str | dict[str, dict[str, Any] | None], BeforeValidator(_check_choice)]
"""A part that is chosen by name, with settings where they differ from its defaults: `gspo`, `{gspo: {clip_low: 1e-3}}`.
Which names and settings there are is known where the part is made."""

Choices = Annotated[str | tuple[str, ...] | dict[str, dict[str, Any] | None], BeforeValidator(_check_choices)]
"""One or several of them, in order: `outcome`, `[equal_rewards, truncated]`, `{outcome: {}, overlong: {max: 1}}`."""
