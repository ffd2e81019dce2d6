"""Presets, files, overrides, and what is said of mistakes in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retool.config.load import dump_config, leaf_keys, load_config, presets
from retool.config.schema import Config
from retool.errors import UsageError


def load(source: str | None = None, *overrides: str) -> Config:
    return load_config(Config, source, overrides)


@pytest.mark.parametrize("name", presets())
def test_every_preset_loads_and_its_dump_is_the_same_config(name: str, tmp_path: Path) -> None:
    config = load(name)
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    assert load(str(path)) == config


@given(
    seed=st.integers(0, 2**31),
    rate=st.floats(1e-9, 1.0),
    instruction=st.none() | st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=30),
    betas=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_config_survives_its_dump(
    seed: int, rate: float, instruction: str | None, betas: tuple, tmp_path: Path
) -> None:
    config = Config.model_validate(
        {
            "seed": seed,
            "rl": {"learning_rate": rate, "betas": betas},
            "protocol": {"instruction": instruction},
            "model": {"architecture": {"model_type": "llama", "hidden_size": 8}},
        }
    )
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert load(str(path)) == config


def test_overrides_win_over_the_file_and_the_file_over_its_preset(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("preset: nano\nrl:\n  steps: 7\n  learning_rate: 2e-6\nsft:\n  betas: [0.9, 0.98]\n")
    config = load(str(path), "rl.prompts=3", "rl.steps=8", "model.architecture.hidden_size=64")
    assert (config.rl.steps, config.rl.prompts, config.rl.samples) == (8, 3, load("nano").rl.samples)
    assert config.rl.learning_rate == 2e-6 and config.sft.betas == (0.9, 0.98)
    assert config.model.architecture["hidden_size"] == 64
    assert config.model.architecture["model_type"] == "llama"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rl.learning_rat=1", "unknown config key 'rl.learning_rat'.*did you mean 'rl.learning_rate'"),
        ("learning_rate=1", r"unknown config key 'learning_rate'.*did you mean '(sft|rl)\.learning_rate'"),
        ("rl.steps=ten", "rl.steps must be an integer, found 'ten'"),
        ("rl.steps=1.5", "rl.steps must be an integer, found 1.5"),
        ("rl.steps=0", "rl.steps must be greater than 0, found 0"),
        ("sampling.top_p=1.5", "sampling.top_p must be at most 1"),
        ("protocol.name=tag", "protocol.name must be one of 'tags', 'native', 'fenced' or 'text', found 'tag'"),
        ("rollout.deterministic=yes", "rollout.deterministic must be true or false, found 'yes'"),
        ("rl=3", "rl must be a section"),
        ("rl.steps.more=3", "unknown config key 'rl.steps.more'"),
        ("rl.steps", "an override has the form key=value"),
        ("rl.steps=[1", "the value of rl.steps.*not valid YAML"),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load("nano", override)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rl:\n  step: 3\n", "unknown config key 'rl.step' in .*mine.yaml; did you mean 'rl.steps'"),
        ("rl: [\n", "mine.yaml, line 2 is not valid YAML"),
        ("- 1\n", "must hold settings as `key: value`, found list"),
        ("preset: nanoo\n", "unknown preset 'nanoo'; presets are nano"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_the_file(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load(str(path))


def test_a_file_that_is_not_there_lists_the_presets() -> None:
    with pytest.raises(UsageError, match=r"no preset and no file 'nan'; presets are nano.*did you mean 'nano'"):
        load("nan")


@pytest.mark.parametrize("text", ["2e-6", "2E-6", "2.0e-6", "1.e3", ".5", "-1e+3"])
def test_numbers_with_an_exponent_are_numbers(text: str) -> None:
    from retool.config.load import _parse

    assert _parse(text, "text") == float(text)


def test_leaf_keys_are_settings_and_not_sections() -> None:
    keys = leaf_keys(Config)
    assert "rl.ppo.clip_low" in keys and "rl" not in keys and "rl.ppo" not in keys
