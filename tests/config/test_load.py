"""Presets, files, overrides, and what is said of mistakes in them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retool.config.load import dump_config, leaf_keys, load_config, presets
from retool.config.notation import parse
from retool.config.sandbox import SandboxConfig
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


texts = st.text(max_size=30) | st.sampled_from(
    [
        "1e5",
        ".5e3",
        "2e-6",
        "on",
        "off",
        "yes",
        "true",
        "null",
        "~",
        "",
        " ",
        "0x1f",
        "1:30",
        "2024-02-30",
        "<<",
        "=",
        "a: b",
        "- a",
        "\x85",
    ]
)
values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts


@given(
    seed=st.integers(0, 2**31),
    rate=st.floats(1e-9, 1.0),
    instruction=st.none() | texts,
    architecture=st.none() | st.dictionaries(texts, values, max_size=3),
    betas=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_config_survives_its_dump(
    seed: int, rate: float, instruction: str | None, architecture: dict | None, betas: tuple, tmp_path: Path
) -> None:
    config = Config.model_validate(
        {
            "seed": seed,
            "rl": {"learning_rate": rate, "betas": betas},
            "protocol": {"instruction": instruction},
            "model": {"architecture": architecture},
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
        ("rl.steps=1" + 5000 * "0", "the value of rl.steps holds a value that cannot be read"),
        ("rl.learning_rate=true", "rl.learning_rate must be a number, found True"),
        ("sampling.temperature=-0.1", "sampling.temperature must be at least 0.0, found -0.1"),
        ("sampling.min_p=1.0", "sampling.min_p must be less than 1.0, found 1.0"),
        ("model.vocabulary=299", "model.vocabulary must be at least 300, found 299"),
        ("model.path=7", "model.path must be a text, found 7"),
        ("rl.betas=0.9", "rl.betas must be a list, found 0.9"),
        ("rl.betas=[0.9]", "rl.betas.1 must be given"),
        ("rl.betas=[0.9, 0.9, 0.9]", "rl.betas must be a list of 2, found"),
        ("rl.betas=[0.9, 1.0]", "rl.betas.1 must be less than 1.0, found 1.0"),
        ("zzz=1", "unknown config key 'zzz' in the command line; the top level has seed, threads, model"),
        ("=1", "an override has the form key=value"),
        ("rl.steps.more=3", "unknown config key 'rl.steps.more'"),
        ("rl.steps", "an override has the form key=value"),
        ("rl.steps=[1", "the value of rl.steps.*not valid YAML"),
        ("rl.learning_rate=.inf", "rl.learning_rate must be a finite number, found inf"),
        ("rl.learning_rate=1e999", "rl.learning_rate must be a finite number, found inf"),
        ("sampling.temperature=.nan", "sampling.temperature must be a finite number, found nan"),
        ("rl.betas=[.nan, 0.9]", "rl.betas.0 must be a finite number, found nan"),
        ("model.architecture={a: 1, a: 2}", "the value of model.architecture, line 1 .* 'a' is given twice"),
        (f"seed={'[' * 2000}", "the value of seed, line 1 .* more than 50 levels of nesting"),
        ("rollout.max_seconds=5", r"^rollout.max_seconds=5.0 lets the clock decide .* rollout.deterministic=false or"),
        (
            "rollout.oversample=1.5",
            r"^rollout.oversample=1.5 lets the clock decide .*deterministic=true rules",
        ),
        ("rollout.oversample=0.5", "rollout.oversample must be at least 1.0, found 0.5"),
        ("rollout.max_turn_tokens=0", "rollout.max_turn_tokens must be greater than 0, found 0"),
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
        ("seed: 1\nrl: {}\nseed: 2\n", "mine.yaml, line 3 is not valid YAML .* the key 'seed' is given twice"),
        ("rl:\n  steps: 1\n  'steps': 2\n", "mine.yaml, line 3 .* the key 'steps' is given twice"),
        (f"seed:\n  {'[' * 2000}{']' * 2000}\n", "mine.yaml, line 2 .* more than 50 levels of nesting"),
        ("model:\n  architecture: &a {b: *a}\n", "mine.yaml, line 2 .* an alias inside what it stands for"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_the_file(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load(str(path))


def test_the_clock_may_decide_where_nothing_promises_the_same_bytes() -> None:
    config = load("nano", "rollout.max_seconds=5", "rollout.oversample=1.5", "rollout.deterministic=false")
    assert (config.rollout.max_seconds, config.rollout.oversample) == (5.0, 1.5)


def test_settings_of_one_section_are_shared_with_another(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("eval:\n  sampling: &s\n    top_p: 0.5\n    top_k: 3\nsampling:\n  <<: *s\n  top_k: 4\n")
    config = load(str(path))
    assert (config.sampling.top_p, config.sampling.top_k, config.eval.sampling.top_k) == (0.5, 4, 3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cpu_second=1", r"unknown config key 'cpu_second' in the command line; did you mean 'cpu_seconds'\?"),
        ("learning_rate=1", "unknown config key 'learning_rate' in the command line; the top level has cpu_seconds,"),
    ],
)
def test_advice_is_about_the_settings_that_were_asked_for(override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_config(SandboxConfig, None, [override])


def test_a_file_of_other_bytes_than_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"seed: \xff\n")
    with pytest.raises(UsageError, match=r"mine\.yaml must be UTF-8 text"):
        load(str(path))


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("# nothing yet\n")
    assert load(str(path)) == load() == Config()


def test_a_file_that_is_not_there_lists_the_presets() -> None:
    with pytest.raises(UsageError, match=r"no preset and no file 'nan'; presets are nano.*did you mean 'nano'"):
        load("nan")


def test_the_presets_of_evaluation_are_those_of_the_paper_and_of_verl() -> None:
    paper, verl = load("paper"), load("verl")
    assert (paper.eval.samples, paper.eval.sampling.temperature, paper.eval.sampling.top_p) == (32, 1.0, 0.7)
    assert (paper.rollout.max_tokens, paper.protocol.name, paper.protocol.fence) == (16384, "tags", True)
    assert (verl.eval.samples, verl.eval.sampling.temperature, verl.eval.sampling.top_p) == (30, 1.0, 0.6)
    assert (verl.rollout.max_tokens, verl.protocol.name) == (16384, "native")


@pytest.mark.parametrize("text", ["2e-6", "2E-6", "2.0e-6", "1.e-3", ".5", "1", "+1e+3"])
def test_a_number_is_a_number_in_every_notation(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"rl:\n  learning_rate: {text}\n")
    assert load(str(path)).rl.learning_rate == load(None, f"rl.learning_rate={text}").rl.learning_rate == float(text)


@pytest.mark.parametrize("text", ["on", "off", "yes", "2024-02-30", "a=b", "models/1e5"])
def test_what_is_no_number_and_not_true_or_false_is_text(text: str) -> None:
    assert load(None, f"model.path={text}").model.path == text


def test_leaf_keys_are_settings_and_not_sections() -> None:
    keys = leaf_keys(Config)
    assert "rl.critic.clip" in keys and "rl" not in keys and "rl.critic" not in keys


def test_the_settings_of_rl_are_fewer_than_a_hundred() -> None:
    """On one machine, that is: a run without the section `cluster` has none of its settings."""
    of_others = ("synth.", "sft.", "eval.", "analyze.", "cluster.")
    read = [key for key in leaf_keys(Config) if key.startswith("eval.sampling.") or not key.startswith(of_others)]
    assert len(read) < 100


def test_a_config_loads_without_torch() -> None:
    code = (
        "import sys; from retool.config.load import load_config; from retool.config.schema import Config; "
        "load_config(Config, 'nano'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("rl.loss=gspo", "gspo"),
        ("rl.loss.ppo_clip.clip_high=0.28", {"ppo_clip": {"clip_high": 0.28}}),
        ("rl.loss={gspo: {clip_low: 1e-3}}", {"gspo": {"clip_low": 1e-3}}),
    ],
)
def test_a_part_is_chosen_by_name_with_or_without_settings(override: str, found: object) -> None:
    config = load_config(Config, None, [override])
    assert config.rl.loss == found
    assert parse(dump_config(config), "config")["rl"]["loss"] == found


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("rl.loss=3", "rl.loss"),
        ("rl.loss=[gspo, cispo]", "rl.loss"),
        ("rl.loss={gspo: {}, cispo: {}}", "rl.loss"),
        ("rl.kl={k2: 0.1}", "rl.kl"),
        ("rl.filters=[1]", "rl.filters"),
    ],
)
def test_what_is_no_choice_is_refused_with_its_key(override: str, key: str) -> None:
    with pytest.raises(UsageError, match=rf"^{key} must be .*name.* found"):
        load_config(Config, None, [override])
