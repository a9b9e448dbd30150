"""MMVA: what the paper says of its layers, towers out of the published encoders' folders, the match score."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPModel, HubertModel, RobertaModel

from networks import mmva
from networks.checkpoints import CheckpointError
from tests.models import tiny

SIZES = mmva.Sizes(layers=4, width=16, embedding=12, hidden=10)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return tiny.mmva_encoders(tmp_path_factory.mktemp("encoders"))


def trained(seed: int = 5) -> mmva.MMVA:
    model: mmva.MMVA = tiny.randomise(mmva.MMVA(SIZES), seed, 0.5)
    return model


def test_the_predictors_are_built_as_the_paper_says() -> None:
    with torch.device("meta"):
        model = mmva.MMVA()
    kinds = [type(layer) for layer in model.emotion["sound"].layers]
    assert kinds == [nn.Linear, nn.ReLU, nn.LayerNorm, nn.Dropout] * 2 + [nn.Linear]
    linear = [
        (layer.in_features, layer.out_features)
        for predictor in (model.emotion["picture"], model.similarity)
        for layer in predictor.layers
        if isinstance(layer, nn.Linear)
    ]
    assert linear == [(512, 512), (512, 512), (512, 2), (1536, 512), (512, 512), (512, 1)]
    assert model.emotion["text"].layers[3].p == 0.5
    assert tuple(model.mix["sound"].convolution.weight.shape) == (1, 13, 1)
    assert tuple(model.mix["text"].linear.weight.shape) == (512, 768)
    # Three predictors, two mixes, one similarity: counted by hand from the layers above.
    predictor = 2 * (512 * 512 + 512) + 2 * 2 * 512 + 512 * 2 + 2
    similarity = 1536 * 512 + 512 + 512 * 512 + 512 + 2 * 2 * 512 + 512 + 1
    assert sum(value.numel() for value in model.parameters()) == 3 * predictor + similarity + 2 * (
        14 + 768 * 512 + 512
    )


def test_layers_are_mixed_by_one_weight_each() -> None:
    mix = trained().mix["sound"]
    layers = torch.randn(2, 4, 16)
    weights = mix.convolution.weight[0, :, 0]
    by_hand = (layers * weights[None, :, None]).sum(1) + mix.convolution.bias
    assert torch.allclose(mix(layers), by_hand @ mix.linear.weight.T + mix.linear.bias, atol=1e-5)


def test_features_read_once_and_towers_say_the_same(folders: dict[str, Path], tmp_path: Path) -> None:
    model = trained()
    save_file(model.state_dict(), tmp_path / "mmva.safetensors")
    towers = mmva.load(tmp_path / "mmva.safetensors", folders["picture"], folders["sound"], folders["text"])
    pixels, sound = torch.randn(3, 3, 224, 224), torch.randn(3, 2000)
    tokens = torch.tensor([[3, 5, 6, 2], [3, 9, 2, 0], [3, 2, 0, 0]])
    mask = (tokens != 0).long()
    inputs = {"picture": (pixels,), "sound": (sound,), "text": (tokens, mask)}
    features = {}
    for modality in mmva.MODALITIES:
        features[modality] = mmva.encoder(modality, folders[modality])(*inputs[modality])
        embedding, felt = getattr(towers, modality)(*inputs[modality])
        assert embedding.shape == (3, 12)
        assert felt.shape == (3, 2)
        assert 0 < felt.min() < felt.max() < 1
        assert torch.allclose(embedding, model.embed(modality, features[modality]), atol=1e-5)
        assert torch.allclose(felt, model.feel(modality, features[modality]), atol=1e-5)
        alone = [
            getattr(towers, modality)(*(value[row : row + 1] for value in inputs[modality]))[1] for row in range(3)
        ]
        assert torch.allclose(torch.cat(alone), felt, atol=1e-5)
    assert features["picture"].shape == (3, 12)
    assert features["sound"].shape == features["text"].shape == (3, 4, 16)
    reading = model(**features)
    assert torch.allclose(reading.text, model.feel("text", features["text"]), atol=1e-6)
    together = torch.cat([model.embed(modality, features[modality]) for modality in mmva.MODALITIES], 1)
    assert torch.allclose(reading.similarity[:, None], towers.similarity(together), atol=1e-5)


def test_the_encoders_are_the_published_classes_own_numbers(folders: dict[str, Path]) -> None:
    pixels, sound = torch.randn(2, 3, 224, 224), torch.randn(2, 2000)
    tokens = torch.tensor([[3, 5, 6, 2], [3, 9, 2, 0]])
    with torch.no_grad():
        clip = CLIPModel.from_pretrained(folders["picture"]).get_image_features(pixel_values=pixels)
        clip = getattr(clip, "pooler_output", clip)
        assert torch.allclose(mmva.encoder("picture", folders["picture"])(pixels), clip, atol=1e-5)
        layers = HubertModel.from_pretrained(folders["sound"]).eval()(sound, output_hidden_states=True).hidden_states
        assert torch.allclose(mmva.encoder("sound", folders["sound"])(sound)[:, 2], layers[2][:, 0], atol=1e-5)
        evenly = mmva.SoundEncoder(HubertModel.from_pretrained(folders["sound"]).eval(), over_time=True)
        assert torch.allclose(evenly(sound)[:, 2], layers[2].mean(1), atol=1e-5)
        roberta = RobertaModel.from_pretrained(folders["text"], add_pooling_layer=False).eval()
        last = roberta(tokens, attention_mask=(tokens != 0).long()).last_hidden_state[:, 0]
        made = mmva.encoder("text", folders["text"])(tokens, (tokens != 0).long())
        assert torch.allclose(made[:, -1], last, atol=1e-5)


def test_a_checkpoint_says_itself_how_large_it_is_and_others_are_refused(tmp_path: Path) -> None:
    state = trained().state_dict()
    assert mmva.MMVA.from_state(state).sizes == SIZES
    with pytest.raises(CheckpointError, match="no checkpoint of MMVA"):
        mmva.MMVA.from_state({"weight": torch.zeros(1)})
    del state["similarity.layers.0.bias"]
    with pytest.raises(CheckpointError, match=r"similarity\.layers\.0\.bias is missing"):
        mmva.MMVA.from_state(state)
    with pytest.raises(FileNotFoundError, match="no encoder for a sound"):
        mmva.encoder("sound", tmp_path)


def test_a_checkpoint_that_lacks_a_tensor_is_not_filled_with_random_numbers(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    network = HubertModel.from_pretrained(folders["sound"])
    state = network.state_dict()
    del state["encoder.layers.1.attention.k_proj.weight"]
    network.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(
        CheckpointError, match=r"lacks 1 tensors of HubertModel: encoder\.layers\.1\.attention\.k_proj"
    ):
        mmva.encoder("sound", tmp_path)


def test_a_mert_of_another_make_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    HubertModel.from_pretrained(folders["sound"]).save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | tiny.MERT_EXTRAS | {"feature_extractor_cqt": True}))
    with pytest.raises(CheckpointError, match="feature_extractor_cqt"):
        mmva.encoder("sound", tmp_path)


def test_training_reaches_every_part() -> None:
    model = trained().train()
    reading = model(torch.randn(6, 12), torch.randn(6, 4, 16), torch.randn(6, 4, 16))
    (reading.picture.sum() + reading.sound.sum() + reading.text.sum() + reading.similarity.sum()).backward()
    still = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.abs().max() > 0]
    assert still == []


def test_the_match_score_is_one_for_equals_and_falls_with_the_distance() -> None:
    one = torch.tensor([0.2, 0.9])
    others = torch.tensor([[0.2, 0.9], [0.5, 0.5], [0.9, 0.1]])
    scores = mmva.match_score(one, others, 0.34)
    assert scores[0] == 1
    assert scores[0] > scores[1] > scores[2] > 0
    assert torch.allclose(scores[1], torch.exp(torch.tensor(-0.5 / 0.34)), atol=1e-6)
    with pytest.raises(ValueError, match="above nothing"):
        mmva.match_score(one, others, 0.0)


def test_sigma_is_the_mean_over_all_pairs_however_they_are_taken() -> None:
    pictures, tracks = torch.rand(7, 2), torch.rand(5, 2)
    by_hand = sum(float((one - other).norm()) for one in pictures for other in tracks) / 35
    assert mmva.mean_distance(pictures, tracks) == pytest.approx(by_hand, rel=1e-5)
    assert mmva.mean_distance(pictures, tracks, rows=2) == pytest.approx(by_hand, rel=1e-5)
    with pytest.raises(ValueError, match="at least one"):
        mmva.mean_distance(pictures[:0], tracks)


def test_sizes_are_the_published_ones_unless_said() -> None:
    assert replace(mmva.Sizes()) == mmva.Sizes(13, 768, 512, 512)


def test_the_published_mert_names_of_the_weight_norm_are_read(folders: dict[str, Path], tmp_path: Path) -> None:
    # As the 2023 release was saved, before torch renamed them.
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    state = HubertModel.from_pretrained(folders["sound"]).state_dict()
    renamed = {}
    for name, value in state.items():
        for new, former in old.items():
            name = name.replace(new, former)
        renamed[name] = value.contiguous()
    assert any(name.endswith("weight_g") for name in renamed)
    (tmp_path / "config.json").write_bytes((folders["sound"] / "config.json").read_bytes())
    torch.save(renamed, tmp_path / "pytorch_model.bin")
    sound = torch.randn(1, 2000)
    assert torch.equal(mmva.encoder("sound", tmp_path)(sound), mmva.encoder("sound", folders["sound"])(sound))
