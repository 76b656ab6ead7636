"""Language models of transformers, with configurations small enough for a test."""

from __future__ import annotations

from typing import Any

import torch

from tests.zoo.entry import Entry, alike, tokens, tokens_without_cache, two_texts

WIDTHS: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
DECODER = {**WIDTHS, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2}
_SHORT = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
_STATE_SPACE = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}
_T5 = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
SEQUENCE_TO_SEQUENCE: dict[str, Any] = {
    "vocab_size": 64,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "decoder_start_token_id": 1,
}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_SHARED_EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
_ROUTED_EXPERTS = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
}
_LATENT_ATTENTION = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "qk_nope_head_dim": 8,
}

# Decoders whose configuration has the names of Llama's, and what each needs beside them.
_LIKE_LLAMA: dict[str, dict[str, Any]] = {
    **alike(
        "ApertusModel ArceeModel BitNetModel Cohere2Model CohereModel DiffLlamaModel"
        " Ernie4_5Model Ernie4_5_MoeModel Exaone4Model GPTNeoXModel Glm4Model GlmModel"
        " GraniteModel GraniteMoeModel JetMoeModel Lfm2Model LlamaModel MistralModel"
        " NemotronModel Olmo2Model OlmoModel PersimmonModel Phi3Model PhiModel Qwen2Model"
        " SeedOssModel SmolLM3Model StableLmModel Starcoder2Model",
    ),
    **alike(
        "Gemma2Model Gemma3TextModel GemmaModel HeliumModel HunYuanDenseV1Model MinistralModel"
        " Qwen3Model",
        head_dim=8,
    ),
    **alike("MiniMaxModel MixtralModel PhimoeModel", **_EXPERTS),
    **alike("OlmoeModel Qwen2MoeModel Qwen3MoeModel", **_SHARED_EXPERTS),
    "GptOssModel": {**_EXPERTS, "head_dim": 8},
    "Dots1Model": {**_ROUTED_EXPERTS, "n_shared_experts": 1, "head_dim": 8},
    "DeepseekV2Model": {**_ROUTED_EXPERTS, **_LATENT_ATTENTION},
    "DeepseekV3Model": {**_ROUTED_EXPERTS, **_LATENT_ATTENTION},
    # attention beside state spaces
    "BambaModel": {
        "mamba_n_heads": 4,
        "mamba_d_head": 16,
        "mamba_d_state": 8,
        "attn_layer_indices": [1],
    },
    "FalconH1Model": {
        "mamba_d_ssm": 32,
        "mamba_n_heads": 4,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
    },
    "JambaModel": {
        "mamba_d_state": 4,
        "mamba_dt_rank": 4,
        "num_experts": 2,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "use_mamba_kernels": False,
    },
    "ZambaModel": {
        "attention_hidden_size": 64,
        "num_key_value_heads": 4,
        "mamba_d_state": 4,
        "mamba_dt_rank": 4,
        "use_mamba_kernels": False,
        "num_hidden_layers": 4,
        "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
    },
    "Zamba2Model": {
        "num_key_value_heads": 4,
        "mamba_d_state": 8,
        "n_mamba_heads": 4,
        "chunk_size": 4,
        "use_mamba_kernels": False,
        "layers_block_type": ["mamba", "hybrid"],
        "use_mem_rope": True,
    },
}

# Encoders whose configuration has the names of Bert's.
_LIKE_BERT: dict[str, dict[str, Any]] = {
    **alike(
        "BertModel BigBirdModel CamembertModel ConvBertModel Data2VecTextModel DebertaModel"
        " DebertaV2Model ElectraModel ErnieModel LayoutLMModel MPNetModel MegatronBertModel"
        " MobileBertModel ModernBertModel MraModel NomicBertModel NystromformerModel RemBertModel"
        " RoFormerModel RobertaModel SplinterModel XLMRobertaModel YosoModel",
    ),
    "AlbertModel": {"embedding_size": 16},
    "LiltModel": {"hidden_size": 48, "channel_shrink_ratio": 2},
    "SqueezeBertModel": {"embedding_size": 32},
    "XmodModel": {"default_language": "en_XX"},
}


def _masked(inputs: Any) -> Any:
    """The same inputs with a mask that leaves out the first two tokens."""
    mask = torch.ones(1, 12, dtype=torch.long)
    mask[:, :2] = 0
    return lambda: {**inputs(), "attention_mask": mask}


LANGUAGE: dict[str, Entry] = {
    **{
        name: Entry(name, {**DECODER, **more}, tokens_without_cache())
        for name, more in _LIKE_LLAMA.items()
    },
    **{name: Entry(name, {**WIDTHS, **more}, tokens()) for name, more in _LIKE_BERT.items()},
    **{
        name: Entry(name, SEQUENCE_TO_SEQUENCE, two_texts)
        for name in alike(
            "BartModel BlenderbotModel BlenderbotSmallModel M2M100Model MBartModel MarianModel"
            " PLBartModel PegasusModel"
        )
    },
    **{
        name: Entry(name, {**_T5, "local_radius": 4}, two_texts)
        for name in ("LongT5Model", "MT5Model", "T5Model", "UMT5Model")
    },
    "BertModel, masked": Entry("BertModel", WIDTHS, _masked(tokens())),
    "LlamaForCausalLM, masked": Entry("LlamaForCausalLM", DECODER, _masked(tokens_without_cache())),
    "DistilBertModel": Entry(
        "DistilBertModel",
        {"vocab_size": 64, "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4},
        tokens(),
    ),
    "FNetModel": Entry("FNetModel", WIDTHS, tokens()),
    "FunnelModel": Entry(
        "FunnelModel",
        {
            "vocab_size": 64,
            "d_model": 32,
            "n_head": 4,
            "d_head": 8,
            "d_inner": 48,
            "block_sizes": [1, 1],
            "num_decoder_layers": 1,
        },
        tokens(),
    ),
    "XLNetModel": Entry(
        "XLNetModel",
        {"vocab_size": 64, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48},
        tokens(),
    ),
    "LongformerModel": Entry("LongformerModel", {**WIDTHS, "attention_window": 4}, tokens(8)),
    "ReformerModel": Entry(
        "ReformerModel",
        {
            "vocab_size": 64,
            "hidden_size": 32,
            "feed_forward_size": 48,
            "num_attention_heads": 4,
            "attention_head_size": 8,
            "attn_layers": ["local"],
            "axial_pos_embds": False,
            "local_attn_chunk_length": 4,
            "max_position_embeddings": 64,
            "is_decoder": False,
        },
        tokens(),
    ),
    "GPT2Model": Entry("GPT2Model", _SHORT, tokens_without_cache()),
    "GPTJModel": Entry("GPTJModel", {**_SHORT, "rotary_dim": 4}, tokens_without_cache()),
    "CodeGenModel": Entry("CodeGenModel", {**_SHORT, "rotary_dim": 4}, tokens_without_cache()),
    "GPTNeoModel": Entry(
        "GPTNeoModel",
        {
            "vocab_size": 64,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "max_position_embeddings": 64,
        },
        tokens_without_cache(),
    ),
    "OPTModel": Entry(
        "OPTModel", {**WIDTHS, "ffn_dim": 48, "word_embed_proj_dim": 32}, tokens_without_cache()
    ),
    "BloomModel": Entry(
        "BloomModel",
        {"vocab_size": 64, "hidden_size": 32, "n_layer": 2, "n_head": 4},
        tokens_without_cache(),
    ),
    "FalconModel": Entry("FalconModel", WIDTHS, tokens_without_cache()),
    "MptModel": Entry(
        "MptModel",
        {"vocab_size": 64, "d_model": 32, "n_layers": 2, "n_heads": 4},
        tokens_without_cache(),
    ),
    "XGLMModel": Entry(
        "XGLMModel",
        {
            "vocab_size": 64,
            "d_model": 32,
            "num_layers": 2,
            "attention_heads": 4,
            "ffn_dim": 48,
            "max_position_embeddings": 64,
        },
        tokens_without_cache(),
    ),
    "MambaModel": Entry("MambaModel", _STATE_SPACE, tokens_without_cache(6)),
    "FalconMambaModel": Entry("FalconMambaModel", _STATE_SPACE, tokens_without_cache(6)),
    "Mamba2Model": Entry(
        "Mamba2Model",
        {**_STATE_SPACE, "num_heads": 4, "head_dim": 8, "n_groups": 1, "chunk_size": 4},
        tokens_without_cache(8),
    ),
    "RwkvModel": Entry(
        "RwkvModel",
        {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "attention_hidden_size": 16},
        tokens_without_cache(5),
    ),
    "RecurrentGemmaModel": Entry(
        "RecurrentGemmaModel",
        {
            **WIDTHS,
            "num_hidden_layers": 3,
            "intermediate_size": 96,
            "lru_width": 32,
            "attention_window_size": 8,
        },
        tokens_without_cache(6),
    ),
    "SwitchTransformersModel": Entry(
        "SwitchTransformersModel",
        {**_T5, "num_experts": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1},
        two_texts,
    ),
    "ProphetNetModel": Entry(
        "ProphetNetModel",
        {
            "vocab_size": 64,
            "hidden_size": 32,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "num_encoder_layers": 1,
            "num_decoder_layers": 1,
            "num_encoder_attention_heads": 4,
            "num_decoder_attention_heads": 4,
            "max_position_embeddings": 64,
        },
        two_texts,
    ),
}
