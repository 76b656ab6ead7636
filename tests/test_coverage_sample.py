"""A sample of the zoos: each model is traced, and is afterwards what it was before.

benchmarks/coverage.py measures the whole zoos.
"""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

import pathlen
from tests.zoo import ZOOS
from tests.zoo.subject import Subject

# One of each construct that the zoos have: dense, residual, grouped and shuffled convolutions,
# windows, class tokens, gates, state spaces, experts, recurrence in depth, detection, video, flow.
SAMPLE = {
    "torchvision": "alexnet densenet121 googlenet shufflenet_v2_x0_5 squeezenet1_1"
    " mobilenet_v3_small regnet_y_400mf lraspp_mobilenet_v3_large quantized_mobilenet_v2 r3d_18"
    " fasterrcnn_mobilenet_v3_large_320_fpn",
    "timm": "botnet26t_256 convmixer_768_32 crossvit_tiny_240 dla34 edgenext_xx_small"
    " efficientformer_l1 ghostnet_050 hgnetv2_b0 inception_next_atto levit_128s mambaout_femto"
    " repvgg_a0 res2net50_14w_8s skresnet18 tiny_vit_5m_224 xcit_nano_12_p16_224",
    "transformers": "BartModel CLIPModel DebertaV2Model DeepseekV3Model FNetModel GptOssModel"
    " LlavaModel Mamba2Model MixtralModel RwkvModel T5Model Wav2Vec2Model WhisperModel"
    " ZambaModel",
}
EXAMPLES = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": "values decide which boxes are kept",
    "LlavaModel": "and which tokens are patches",
}
CASES = [(zoo, name) for zoo, names in SAMPLE.items() for name in names.split()]


def state_of(model: torch.nn.Module) -> dict[str, Any]:
    """All that tracing must leave alone; tensors on the meta device have no values to compare."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {
        "tensors": {name: id(tensor) for name, tensor in tensors},
        "sums": {
            name: tensor.double().nan_to_num().sum().item()
            for name, tensor in tensors
            if not tensor.is_meta
        },
        "keys": list(model.state_dict()),
        "training": [module.training for module in model.modules()],
        "hooks": [
            (len(module._forward_hooks), len(module._forward_pre_hooks))
            for module in model.modules()
        ],
        "attributes": [sorted(vars(module)) for module in model.modules()],
        "random": (torch.get_rng_state().tolist(), random.getstate()),
        "numpy": np.random.get_state()[1].tolist(),
    }


@pytest.mark.parametrize(("zoo", "name"), CASES, ids=[name for _, name in CASES])
@pytest.mark.filterwarnings("ignore")  # what libraries warn of is not at issue
def test_a_model_is_measured_and_left_as_it_was(zoo, name):
    subject: Subject = ZOOS[zoo].build(name)
    subject.model.train(mode=zoo == "timm")  # so that putting it in eval mode would show
    before = state_of(subject.model)
    report = pathlen.measure(
        subject.model, subject.args, subject.kwargs, input_axis=subject.input_axis
    )
    assert state_of(subject.model) == before
    assert report.status == ("example" if name in EXAMPLES else "exact"), report.causes
    assert 0 < report.normalized_average_path_length <= report.longest_path
    assert report.average_path_length <= report.longest_path


# --- values worked out by hand --------------------------------------------------------------------

# A residual sum sends half of the walks along its branch, and a gated unit half of those along its
# gate. The embedding, attention and what else lies on the way have no activation.
BY_HAND = {
    ("torchvision", "alexnet"): 7,  # a chain of seven
    ("torchvision", "resnet34"): 1 + 16 * Fraction(3, 2),  # 1 after the sum, 1 in half of the walks
    ("torchvision", "swin_t"): Fraction(12, 2),  # one GELU in every second branch, 12 blocks
    ("timm", "resnet26"): 1 + 8 * (1 + Fraction(2, 2)),  # bottlenecks have 2 in the branch
    ("timm", "convnext_tiny"): Fraction(18, 2),
    ("timm", "vit_tiny_patch16_224"): Fraction(12, 2),
    ("timm", "mixer_s32_224"): 8 * Fraction(1, 2) * 2,  # one for tokens, one for channels
    ("transformers", "DistilBertModel"): Fraction(2, 2),
    ("transformers", "BertModel"): Fraction(2, 2) + Fraction(1, 2),  # a tanh before one output of 2
    ("transformers", "GPT2Model"): Fraction(2, 2),
    ("transformers", "LlamaModel"): Fraction(2, 4),
    ("transformers", "Qwen3Model"): Fraction(2, 4),
}


@pytest.mark.parametrize(("zoo", "name"), BY_HAND, ids=[name for _, name in BY_HAND])
@pytest.mark.filterwarnings("ignore")
def test_normalized_average_path_length_of_well_known_models(zoo, name):
    subject: Subject = ZOOS[zoo].build(name)
    report = pathlen.measure(subject.model, subject.args, subject.kwargs, exact=True)
    assert report.normalized_average_path_length == BY_HAND[zoo, name]
