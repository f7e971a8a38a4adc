"""Against the classes of transformers; what holds for every voice network is in test_spectral_voice.py."""

import ast
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

from encoders import voice
from encoders.acoustics import torchaudio
from encoders.backbones import speech_transformer
from encoders.backbones.speech_transformer import (
    ARCHITECTURES,
    BASE_SIZES,
    SpeechTransformer,
    SpeechTransformerNetwork,
    SpeechTransformerPreparation,
    public_parameters,
    public_preparation,
)
from encoders.packaging import drawn_voice
from tests.encoders.backbones.field_voices import TRANSFORMER_SIZES
from tests.encoders.backbones.seeded_weights import seed_weights

LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
SOUNDS = [drawn_voice(seed, 0.5 + 0.6 * seed) for seed in range(3)]


@pytest.fixture(scope="module")
def transformers():
    torchaudio()
    return pytest.importorskip("transformers")


@pytest.fixture(scope="module", params=[(one, large) for one in ARCHITECTURES for large in (False, True)], ids=str)
def public(request, transformers, tmp_path_factory):
    """A folder as a hub has it, with weights of a seed, and the reference class loaded from it."""
    architecture, large = request.param
    name, folder = ARCHITECTURES[architecture], tmp_path_factory.mktemp(architecture)
    config = getattr(transformers, f"{name}Config")(**TRANSFORMER_SIZES, **(LARGE if large else {}))
    model = getattr(transformers, f"{name}Model")(config)
    seed_weights(model, 5).save_pretrained(folder)
    processing = transformers.Wav2Vec2FeatureExtractor(do_normalize=architecture != "wavlm")
    processing.save_pretrained(folder)
    return folder, model.eval(), processing


def reference(public, layer):
    """What transformers gives each sound, run alone: the mean of a hidden layer."""
    _, model, processing = public
    rows = []
    with torch.no_grad():
        for sound in SOUNDS:
            inputs = processing(sound, sampling_rate=16000, return_tensors="pt").input_values
            rows.append(model(inputs, output_hidden_states=True).hidden_states[layer].mean(dim=1)[0])
            if layer == model.config.num_hidden_layers:
                rows[-1] = model(inputs).last_hidden_state.mean(dim=1)[0]
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_vectors_are_the_mean_of_the_references_hidden_layer(public, layer):
    preparation = json.loads(json.dumps(asdict(public_preparation(public[0])) | {"layer": layer}))
    served, expected = SpeechTransformer(public[0] / "model.safetensors", preparation), reference(public, layer)
    vectors = served.embed([served.prepare(sound) for sound in SOUNDS])
    np.testing.assert_allclose(vectors, expected, atol=1e-4 * np.abs(expected).max())
    centred, wanted = vectors - expected.mean(axis=0), expected - expected.mean(axis=0)
    lengths = np.linalg.norm(centred, axis=1) * np.linalg.norm(wanted, axis=1)
    assert ((centred * wanted).sum(axis=1) / lengths).min() >= 0.99999


def test_the_preparation_is_read_from_the_files_beside_the_weights(public):
    found = public_preparation(public[0])
    assert found.layer == 2 and found.dimension == 64 and found.sizes["conv_dim"] == [16] * 7
    assert found.normalised is (found.architecture != "wavlm")
    assert set(found.sizes) == set(BASE_SIZES[found.architecture])


def test_parameters_have_the_references_names(public):
    network = SpeechTransformerNetwork(public_preparation(public[0]))
    assert set(network.state_dict()) == set(public[1].state_dict())


def test_weights_of_a_pre_trained_network_in_the_old_format_load_the_same(transformers, tmp_path):
    sizes = TRANSFORMER_SIZES | {"codevector_dim": 8, "proj_codevector_dim": 8, "num_codevectors_per_group": 4}
    whole = seed_weights(transformers.Wav2Vec2ForPreTraining(transformers.Wav2Vec2Config(**sizes)), 2)
    whole.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    assert "wav2vec2.masked_spec_embed" in state and "quantizer.codevectors" in state
    begin = "encoder.pos_conv_embed.conv."
    old = {}
    for name, value in state.items():  # as torch called the two parts when the public files were made
        old[
            name.replace("parametrizations.weight.original0", "weight_g").replace(
                "parametrizations.weight.original1", "weight_v"
            )
        ] = value
    assert f"wav2vec2.{begin}weight_g" in old
    torch.save(old, tmp_path / "pytorch_model.bin")
    expected = dict(whole.wav2vec2.state_dict())
    for path in (tmp_path / "pytorch_model.bin", tmp_path / "model.safetensors", tmp_path):
        found = public_parameters(path)
        assert set(found) == set(expected) and all(torch.equal(found[name], expected[name]) for name in found)


def test_a_file_without_the_mask_of_pre_training_loads_too(tmp_path):
    preparation = SpeechTransformerPreparation(sizes=TRANSFORMER_SIZES, layer=1)
    state = seed_weights(SpeechTransformerNetwork(preparation), 1).state_dict()
    whole, without = tmp_path / "whole.safetensors", tmp_path / "without.safetensors"
    whole.write_bytes(save(state))
    without.write_bytes(save({name: value for name, value in state.items() if name != "masked_spec_embed"}))
    vectors = [
        one.embed([one.prepare(SOUNDS[0])])
        for one in (SpeechTransformer(path, asdict(preparation)) for path in (whole, without))
    ]
    np.testing.assert_array_equal(*vectors)


def test_the_base_networks_sizes_are_those_that_transformers_has_by_default(transformers):
    for architecture, sizes in BASE_SIZES.items():
        config = getattr(transformers, f"{ARCHITECTURES[architecture]}Config")()
        assert {name: getattr(config, name) for name in sizes} == {
            name: tuple(value) if isinstance(getattr(config, name), tuple) else value for name, value in sizes.items()
        }


def test_transformers_itself_would_let_the_length_of_a_batch_change_a_vector(transformers):
    """The reason for running the convolutions ourselves; should this fail one day, that is no longer needed."""
    model = seed_weights(transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**TRANSFORMER_SIZES)), 5)
    sound = torch.from_numpy(SOUNDS[0])[None]
    padded = torch.cat([sound, torch.zeros_like(sound)], dim=1)
    with torch.no_grad():
        first, second = (model.feature_extractor(one)[:, :, :20] for one in (sound, padded))
    assert not torch.allclose(first, second, atol=1e-3)


def test_transformers_is_imported_when_a_network_is_made_and_not_before():
    at_once = ast.parse(Path(speech_transformer.__file__).read_text()).body
    names = {alias.name for node in at_once if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in at_once if isinstance(node, ast.ImportFrom)}
    assert not [name for name in names if name.split(".")[0] == "transformers"] and "torch" in names


def test_it_can_be_trained():
    network = SpeechTransformerNetwork(SpeechTransformerPreparation(sizes=TRANSFORMER_SIZES, layer=2)).train()
    for part in network.modules():  # by chance a layer is passed over in training (LayerDrop, Fan et al. 2020)
        if hasattr(part, "config"):
            part.config.layerdrop = 0.0
    network(torch.randn(2, 4000), torch.tensor([4000, 3000])).square().sum().backward()
    used = {name for name, one in network.named_parameters() if one.grad is not None}
    assert {name for name, _ in network.named_parameters()} - used == {"masked_spec_embed"}


@pytest.mark.parametrize("name", ["wav2vec2_base", "hubert_base", "wavlm_base"])
def test_a_row_names_weights_sizes_and_what_is_done_to_waveforms(name):
    files = next(row for row in voice.BACKBONES if row.name == name).sources
    assert [one.file for one in files] == ["pytorch_model.bin", "config.json", "preprocessor_config.json"]
    assert len({one.repository for one in files}) == 1 and all(one.licence and one.sha256 is None for one in files)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"architecture": "whisper"}, "choose one of: wav2vec2, hubert, wavlm"),
        ({"sizes": {"depth": 3}}, "have no depth; they have hidden_size"),
        ({"layer": 13}, "layer must be in 0 to 12, got 13"),
        ({"sizes": {"num_buckets": 3}}, "have no num_buckets"),
    ],
)
def test_impossible_preparation_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        SpeechTransformerPreparation(**wrong)


def test_sizes_that_make_no_network_are_refused():
    sizes = TRANSFORMER_SIZES | {"num_attention_heads": 7}
    with pytest.raises(ValueError, match="no wav2vec2 can be made of these sizes"):
        SpeechTransformerNetwork(SpeechTransformerPreparation(sizes=sizes, layer=1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"model_type": "bert"}', "is of a 'bert'; this reads one of: wav2vec2"),
        ("[]", "must hold a JSON object"),
        ("{", "cannot be read as JSON"),
        ('{"model_type": "wav2vec2", "add_adapter": true}', "has an adapter"),
    ],
)
def test_a_folder_of_something_else_is_refused(tmp_path, content, message):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        public_preparation(tmp_path)
    with pytest.raises(ValueError, match=r"holds neither model\.safetensors nor"):
        public_parameters(tmp_path)
