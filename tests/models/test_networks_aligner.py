"""The image aligner: the published sizes, the 2024 checkpoint's names, and what it says of other files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from networks.aligner import TOKEN_COUNTS, ImageAligner
from networks.checkpoints import CheckpointError, read_checkpoint


@pytest.mark.parametrize(("tokens", "published"), [(1, 2_754_816), (4, 6_296_064), (16, 20_461_056)])
def test_parameters_are_as_many_as_published(tokens: int, published: int) -> None:
    with torch.device("meta"):
        aligner = ImageAligner(tokens)
    assert sum(parameter.numel() for parameter in aligner.parameters()) == published
    assert {name: tuple(value.shape) for name, value in aligner.state_dict().items()} == {
        "projection1.weight": (1536, 1024),
        "projection1.bias": (1536,),
        "projection2.weight": (768 * tokens, 1536),
        "projection2.bias": (768 * tokens,),
    }


@pytest.mark.parametrize("tokens", TOKEN_COUNTS)
@pytest.mark.parametrize("vector_size", [1024, 512])
def test_a_vector_becomes_tokens_and_a_batch_is_its_rows(tokens: int, vector_size: int) -> None:
    aligner = ImageAligner(tokens, vector_size).eval()
    vectors = torch.randn(3, vector_size)
    made = aligner(vectors)
    assert made.shape == (3, tokens, 768)
    alone = torch.cat([aligner(vectors[row : row + 1]) for row in range(3)])
    assert torch.allclose(made, alone, atol=1e-6)


def test_it_is_the_published_formula() -> None:
    aligner = ImageAligner(4).eval()
    state = aligner.state_dict()
    vector = torch.randn(1, 1024)
    hidden = torch.tanh(vector @ state["projection1.weight"].T + state["projection1.bias"])
    by_hand = (hidden @ state["projection2.weight"].T + state["projection2.bias"]).reshape(1, 4, 768)
    assert torch.allclose(aligner(vector), by_hand, atol=1e-6)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(("tokens", "vector_size"), [(1, 1024), (6, 512), (16, 1024)])
def test_a_checkpoint_says_itself_what_it_is(tmp_path: Path, suffix: str, tokens: int, vector_size: int) -> None:
    aligner = ImageAligner(tokens, vector_size).eval()
    path = tmp_path / f"aligner{suffix}"
    if suffix == ".pt":
        torch.save(aligner.state_dict(), path)
    else:
        save_file(aligner.state_dict(), path)
    loaded = ImageAligner.from_state(read_checkpoint(path))
    assert (loaded.tokens, loaded.vector_size) == (tokens, vector_size)
    vectors = torch.randn(2, vector_size)
    assert torch.equal(loaded(vectors), aligner(vectors))


def test_a_wrapped_checkpoint_of_distributed_training_is_read(tmp_path: Path) -> None:
    aligner = ImageAligner(1)
    path = tmp_path / "wrapped.pth"
    state = {f"module.{name}": value for name, value in aligner.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, path)
    assert ImageAligner.from_state(read_checkpoint(path)).tokens == 1


def test_other_files_are_refused_with_their_fault(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint at"):
        read_checkpoint(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("not a checkpoint")
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        read_checkpoint(tmp_path / "text.pt")
    with pytest.raises(CheckpointError, match="no checkpoint of an image aligner"):
        ImageAligner.from_state({"weight": torch.zeros(2, 2)})
    state = ImageAligner(4).state_dict()
    del state["projection1.bias"]
    with pytest.raises(CheckpointError, match=r"projection1\.bias is missing"):
        ImageAligner.from_state(state)
    with pytest.raises(ValueError, match=r"takes \[B, 1024\]"):
        ImageAligner(1)(torch.zeros(1, 512))
