"""Language models of transformers as they come: with a cache, on the meta device, on data.

Each is built from a tiny configuration; what it is compared with is the same model without a cache,
and torch's own hooks on its activations.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import pathlen
from pathlen.errors import DataError
from tests.vision import import_torchvision

import_torchvision()  # transformers imports it
transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {"num_key_value_heads": 2}
HEADS = {"head_dim": 4}
DECODERS = {
    "Llama": GROUPED,
    "Mistral": {**GROUPED, "sliding_window": 3},
    "GPTNeoX": {},
    "Phi": {},
    "Gemma": {**HEADS, "num_key_value_heads": 1},
    "Gemma2": {**HEADS, **GROUPED, "sliding_window": 3},
    "Qwen2": GROUPED,
    "Qwen3": {**HEADS, **GROUPED},
    "GPT2": {},
    "OPT": {"ffn_dim": 24, "word_embed_proj_dim": 16},
    "Falcon": {},
    "Mixtral": {**GROUPED, "num_local_experts": 4},
}
TOKENS = torch.tensor([[5, 9, 3, 30, 21, 7], [8, 4, 17, 3, 12, 39]])


def decoder(name: str, device: str = "cpu") -> nn.Module:
    """A tiny language model with random weights."""
    head = "GPT2LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM"
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SIZES, **DECODERS[name])
    with torch.device(device):
        return getattr(transformers, head)(config).eval()


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_as_it_comes(name):
    plain = pathlen.measure(decoder(name), TOKENS, {"use_cache": False}, exact=True)
    for device in ("cpu", "meta"):
        report = pathlen.measure(decoder(name, device), TOKENS.to(device), exact=True)
        assert (report.status, report.causes) == ("exact", ())
        assert report.path_count == plain.path_count
        assert report.average_path_length == plain.average_path_length
        assert report.normalized_average_path_length == plain.normalized_average_path_length
        assert report.num_active == plain.num_active > 0


class Program(nn.Module):
    """A linear layer after a function of the module and its input."""

    def __init__(self, function):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.scale = nn.Buffer(torch.ones(4))
        self.function = function

    def forward(self, x):
        return self.layer(self.function(self, x))


SEEN_ANEW = {
    "a buffer gets an axis": lambda m, x: x.relu() * m.scale.unsqueeze_(0),
    "a buffer is detached": lambda m, x: x.relu() * m.scale.detach_(),
    "a buffer is transposed": lambda m, x: x.relu() * m.scale.view(1, 4).t_().t_(),
    "a buffer grows": lambda m, x: x.relu() * m.scale.resize_(1, 4),
    "numbers become a tensor": lambda m, x: x.relu() * torch.tensor([[1.0] * 4], device=x.device),
    "and get an axis": lambda m, x: (
        x.relu() * torch.tensor([1.0] * 4, device=x.device).unsqueeze_(0)
    ),
    "nothing is the start": lambda m, x: torch.cat(
        [torch.tensor([], device=x.device), x.relu()[0]]
    )[None],
    "a result is squeezed": lambda m, x: x.relu().unsqueeze_(0).squeeze_(0),
}


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("name", SEEN_ANEW)
def test_what_changes_how_a_tensor_is_seen(name, device):
    with torch.device(device):
        model, x = Program(SEEN_ANEW[name]), torch.ones(1, 4)
    report = pathlen.measure(model, x, exact=True)
    assert report.tracer == "eager recorder (fake tensors)"
    assert (report.path_count, report.average_path_length) == (12, 1)
    assert model.scale.shape == (4,)
    assert model.scale.stride() == (1,)


PICKS = {
    "a list": lambda m, x: x[:, [0, 2, 0, 2]].relu(),
    "an array": lambda m, x: x[:, np.array([0, 2, 0, 2])].relu(),
    "a list of truth": lambda m, x: x[:, [True, False, True, False]].relu().repeat(1, 2),
    "a tensor": lambda m, x: x[:, torch.tensor([0, 2, 0, 2], device=x.device)].relu(),
    "a tensor like another": lambda m, x: x[:, x.new_tensor([0, 2, 0, 2], dtype=torch.long)].relu(),
}


@pytest.mark.parametrize("name", PICKS)
def test_numbers_in_a_program_on_the_meta_device_keep_their_values(name):
    """Two of four inputs are picked, for four channels: they are two units."""
    for device in ("cpu", "meta"):
        with torch.device(device):
            report = pathlen.measure(Program(PICKS[name]), torch.ones(1, 4), exact=True)
        assert (report.path_count, report.num_active, report.status) == (6, 2, "exact")


def hooked(model: nn.Module, name: str, batches: list[dict[str, torch.Tensor]]) -> dict[str, int]:
    """How many values each activation of a name was given, by its path."""
    counts: dict[str, int] = {}
    for path, module in model.named_modules():
        if path.endswith(name):

            def count(module, args, path=path):
                counts[path] = counts.get(path, 0) + args[0].numel() // args[0].shape[-1]

            module.register_forward_pre_hook(count)
    with torch.no_grad():
        for batch in batches:
            model(**batch)
    return counts


QUICK = ("Llama", "GPTNeoX")
FOLLOWED = ("Mistral", "Gemma2", "Qwen2", "GPT2", "Mixtral")


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in FOLLOWED)]
)
def test_activity_on_texts_of_other_lengths_and_paddings(name):
    full = torch.ones_like(TOKENS)
    left, right = full.clone(), full.clone()
    left[0, :2] = 0
    right[1, 4:] = 0
    batches = [{"input_ids": TOKENS, "attention_mask": mask} for mask in (full, left, full, right)]
    batches += [{"input_ids": TOKENS[:, :4], "attention_mask": full[:, :4]}]
    model = decoder(name)
    graph = pathlen.trace(model, kwargs=batches[0])
    seen = pathlen.activity.from_data(model, batches)
    assert set(np.flatnonzero(graph.activity)) <= set(seen.nodes)
    assert seen.batches == 5
    if name in ("Llama", "Qwen2"):  # one value for each token of each batch
        assert set(seen.samples.tolist()) == {4 * TOKENS.numel() + 8}
        assert set(hooked(model, "act_fn", batches).values()) == {56}


class Asks(nn.Module):
    """Makes other calls where every value is large, and others still on tensors without data."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        if isinstance(x, torch._subclasses.FakeTensor):
            x = x * 1.0
        elif bool((x > 0.5).all()):
            x = x + 0.0
        return self.layer(x).relu()


def test_programs_that_differ_by_batch_are_one_if_their_graph_is():
    model = Asks().double()
    torch.manual_seed(0)
    batches = [torch.rand(50, 4).double() + shift for shift in (0.0, 1.0, -3.0, 1.0)]
    seen = pathlen.activity.from_data(model, batches)
    x = model.layer(torch.cat(batches)).detach()
    y = x.relu()
    centered = x - x.mean(0), y - y.mean(0)
    slope = (centered[0] * centered[1]).sum(0) / (centered[0] ** 2).sum(0)
    left = ((centered[1] - slope * centered[0]) ** 2).sum(0) / (centered[1] ** 2).sum(0)
    assert seen.nonlinearity == pytest.approx(left.numpy(), rel=1e-9)
    assert seen.samples.tolist() == [200] * 3


def test_a_batch_with_another_graph_is_refused():
    class Gated(Asks):
        def forward(self, x):
            return self.layer(x).relu() if x.sum() > 0 else self.layer(x)

    with pytest.raises(DataError, match=r"batch 1.*another path graph"):
        pathlen.activity.from_data(Gated(), [torch.ones(9, 4), -torch.ones(9, 4)])
