"""What several areas share: a tiny model with a tokenizer of its own, saved as a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from retool.config.schema import ModelConfig
from retool.learner.policy import create_model
from retool.learner.tokenizer import train_tokenizer
from two_processes import InTwo, two_processes

settings.register_profile("shared-machine", deadline=None)  # where others run, an example may take its time
settings.load_profile("shared-machine")

TEXTS = [
    "What is 12 times 7?\nWe need 12 * 7.\n<code>\nprint(12 * 7)\n</code>\n<interpreter>\n84\n</interpreter>\n"
    "So the answer is \\boxed{84}.",
    "for n in range(1, 10):\n    if n % 3 == 0:\n        print(n)",
]
ARCHITECTURE = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """As many of torch's as the test's parameter says."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def in_two() -> Iterator[InTwo]:
    """Runs a function in two processes at once, as torchrun starts them."""
    with two_processes() as run:
        yield run


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, 400)


@pytest.fixture
def model(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    return create_model(ModelConfig(architecture=ARCHITECTURE, device="cpu"), tokenizer, seed=0).eval()


@pytest.fixture
def model_folder(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
