"""Vision, audio and multimodal models of transformers, with small configurations."""

from __future__ import annotations

from typing import Any

import torch

from tests.zoo.entry import Entry, alike, image, pixels, text_and_image, token_ids
from tests.zoo.language import DECODER, SEQUENCE_TO_SEQUENCE, WIDTHS

VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
_WINDOWS = {
    "image_size": 32,
    "patch_size": 4,
    "embed_dim": 16,
    "depths": [1, 1],
    "num_heads": [2, 2],
    "window_size": 4,
}
_TWO_STAGES = {"hidden_sizes": [8, 16], "depths": [1, 1]}
_FOUR_STAGES = {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1]}
_PYRAMID = {**_FOUR_STAGES, "num_attention_heads": [1, 2, 2, 2]}
_PATCHES_IN_TIME = {
    "num_input_channels": 3,
    "context_length": 16,
    "patch_length": 4,
    "patch_stride": 4,
    "d_model": 16,
}
_SPEECH: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": (8, 8),
    "conv_stride": (5, 2),
    "conv_kernel": (10, 3),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}


def _waveform() -> dict[str, Any]:
    return {"input_values": torch.randn(1, 400)}


def _series() -> dict[str, Any]:
    return {"past_values": torch.randn(1, 16, 3)}


def _image_in_text() -> dict[str, Any]:
    """A prompt of 16 places for the image's patches (token 60) and 4 words."""
    prompt = torch.cat([torch.full((1, 16), 60), token_ids(4)], dim=1)
    return {"input_ids": prompt, "pixel_values": image(), "use_cache": False}


PERCEPTION: dict[str, Entry] = {
    **{
        name: Entry(name, VISION, pixels())
        for name in alike(
            "BeitModel DPTModel Data2VecVisionModel DeiTModel Dinov2Model Dinov2WithRegistersModel"
            " FlavaImageModel IJepaModel ViTMAEModel ViTMSNModel ViTModel"
        )
    },
    "YolosModel": Entry("YolosModel", {**VISION, "image_size": [32, 32]}, pixels()),
    "SwinModel": Entry("SwinModel", _WINDOWS, pixels()),
    "Swinv2Model": Entry("Swinv2Model", _WINDOWS, pixels()),
    "ConvNextModel": Entry("ConvNextModel", {**_TWO_STAGES, "num_stages": 2}, pixels()),
    "ConvNextV2Model": Entry("ConvNextV2Model", {**_TWO_STAGES, "num_stages": 2}, pixels()),
    "ResNetModel": Entry("ResNetModel", {**_TWO_STAGES, "embedding_size": 8}, pixels()),
    "RegNetModel": Entry(
        "RegNetModel", {**_TWO_STAGES, "embedding_size": 8, "groups_width": 8}, pixels()
    ),
    "BitModel": Entry(
        "BitModel", {**_TWO_STAGES, "embedding_size": 8, "num_groups": 2}, pixels(64)
    ),
    "FocalNetModel": Entry(
        "FocalNetModel",
        {
            "image_size": 32,
            "embed_dim": 16,
            "depths": [1, 1],
            "hidden_sizes": [16, 32],
            "focal_levels": [2, 2],
            "focal_windows": [3, 3],
        },
        pixels(),
    ),
    "SegformerModel": Entry("SegformerModel", {**_PYRAMID, "decoder_hidden_size": 16}, pixels(64)),
    "SegformerForSemanticSegmentation": Entry(
        "SegformerForSemanticSegmentation", {**_PYRAMID, "decoder_hidden_size": 16}, pixels(64)
    ),
    "PvtModel": Entry("PvtModel", {**_PYRAMID, "image_size": 64}, pixels(64)),
    "PoolFormerModel": Entry("PoolFormerModel", _FOUR_STAGES, pixels(64)),
    "MobileNetV2Model": Entry("MobileNetV2Model", {"depth_multiplier": 0.35}, pixels(64)),
    "MobileViTModel": Entry(
        "MobileViTModel",
        {
            "hidden_sizes": [16, 16, 16],
            "neck_hidden_sizes": [8, 8, 8, 16, 16, 16, 32],
            "image_size": 64,
        },
        pixels(64),
    ),
    "LevitModel": Entry(
        "LevitModel",
        {
            "image_size": 64,
            "hidden_sizes": [16, 32, 32],
            "num_attention_heads": [2, 2, 2],
            "depths": [1, 1, 1],
            "key_dim": [8, 8, 8],
        },
        pixels(64),
    ),
    "CvtModel": Entry(
        "CvtModel",
        {"embed_dim": [8, 16, 16], "num_heads": [1, 2, 2], "depth": [1, 2, 3]},
        pixels(64),
    ),
    "EfficientNetModel": Entry(
        "EfficientNetModel",
        {
            "width_coefficient": 0.25,
            "depth_coefficient": 0.2,
            "image_size": 64,
            "hidden_dim": 320,  # 0.25 of 1280, the channels of the last stage
        },
        pixels(64),
    ),
    "DetrModel": Entry(
        "DetrModel",
        {
            "d_model": 32,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "num_queries": 5,
            "use_timm_backbone": False,
            "use_pretrained_backbone": False,
            "backbone": None,
            "backbone_config": {
                "model_type": "resnet",
                "embedding_size": 8,
                "out_features": ["stage2"],
                **_TWO_STAGES,
            },
        },
        pixels(64),
    ),
    "PerceiverModel": Entry(
        "PerceiverModel",
        {
            "d_model": 32,
            "d_latents": 32,
            "num_latents": 8,
            "num_self_attends_per_block": 1,
            "num_blocks": 1,
            "num_self_attention_heads": 4,
            "num_cross_attention_heads": 4,
        },
        lambda: {"inputs": torch.randn(1, 10, 32)},
    ),
    # text and images
    "CLIPModel": Entry(
        "CLIPModel",
        {
            "text_config": {**WIDTHS, "projection_dim": 16},
            "vision_config": VISION,
            "projection_dim": 16,
        },
        text_and_image,
    ),
    "SiglipModel": Entry(
        "SiglipModel", {"text_config": WIDTHS, "vision_config": VISION}, text_and_image
    ),
    "BlipModel": Entry(
        "BlipModel", {"text_config": WIDTHS, "vision_config": VISION}, text_and_image
    ),
    "ViltModel": Entry("ViltModel", {**WIDTHS, "image_size": 32, "patch_size": 8}, text_and_image),
    "LlavaModel": Entry(
        "LlavaModel",
        {
            "text_config": {"model_type": "llama", **DECODER},
            "vision_config": {"model_type": "clip_vision_model", **VISION},
            "image_token_index": 60,
        },
        _image_in_text,
    ),
    # sound and time series
    **{
        name: Entry(name, _SPEECH, _waveform)
        for name in alike(
            "Data2VecAudioModel HubertModel SEWModel UniSpeechModel Wav2Vec2Model WavLMModel"
        )
    },
    "WhisperModel": Entry(
        "WhisperModel",
        {
            **SEQUENCE_TO_SEQUENCE,
            "num_mel_bins": 8,
            "max_source_positions": 16,
            "max_target_positions": 16,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "suppress_tokens": None,
            "begin_suppress_tokens": None,
        },
        lambda: {
            "input_features": torch.randn(1, 8, 32),
            "decoder_input_ids": token_ids(5),
            "use_cache": False,
        },
    ),
    "ASTModel": Entry(
        "ASTModel",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 48,
            "max_length": 32,
            "num_mel_bins": 16,
            "patch_size": 8,
            "time_stride": 8,
            "frequency_stride": 8,
        },
        lambda: {"input_values": torch.randn(1, 32, 16)},
    ),
    "PatchTSTModel": Entry(
        "PatchTSTModel",
        {**_PATCHES_IN_TIME, "num_attention_heads": 2, "num_hidden_layers": 1, "ffn_dim": 16},
        _series,
    ),
    "PatchTSMixerModel": Entry("PatchTSMixerModel", {**_PATCHES_IN_TIME, "num_layers": 1}, _series),
}
