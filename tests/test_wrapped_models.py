"""Models inside wrappers, contexts and transforms have the numbers of the plain model.

The law of this file: whatever wraps the network below, its numbers stay 3 * 4 * 4 * 2 = 96 paths,
each over one ReLU and one tanh; and model, process and arguments are afterwards as they were.
"""

from __future__ import annotations

import random
import threading
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import pathlen
from pathlen.errors import ModelError, TraceError, UnsupportedOperation
from tests.constructs import Model, answer
from tests.test_tracing import state_of

PLAIN = (96, 2, 2)
X = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


def plain():
    layers = [nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)]
    return nn.Sequential(*layers)


def wrapped(function):
    return Model(function, net=plain())


def assert_plain(model, x=X):
    state = state_of(model)
    values = x.clone()
    assert answer(model, x) == PLAIN
    assert state_of(model) == state
    assert torch.equal(x, values)


def test_the_plain_model():
    assert_plain(plain())


# --- wrappers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_blocks(reentrant):
    # without gradients to compute, torch warns that a reentrant checkpoint has none
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert_plain(wrapped(lambda m, x: checkpoint(m.net, x, use_reentrant=reentrant)))
        one_by_one = wrapped(lambda m, x: checkpoint_sequential(m.net, 2, x, use_reentrant=False))
        assert_plain(one_by_one)


def test_compiled_models_are_traced_without_compiling_anything(monkeypatch):
    def compile_nothing(*args):
        pytest.fail("the model was compiled")

    whole, part = plain(), torch.compile(plain(), backend=compile_nothing)
    whole.compile(backend=compile_nothing)
    compiled = torch.compile(torch.tanh, backend=compile_nothing)
    function = Model(
        lambda m, x: m.b(compiled(m.m(torch.relu(m.a(x))))),
        a=nn.Linear(3, 4),
        m=nn.Linear(4, 4),
        b=nn.Linear(4, 2),
    )
    for model in (whole, part, Model(lambda m, x: m.net(x), net=part), function):
        assert answer(model, X) == PLAIN


def test_a_compiled_model_still_compiles_afterwards():
    calls = []

    def backend(graph, examples):
        calls.append(graph)
        return graph.forward

    model = torch.compile(plain(), backend=backend)
    assert answer(model, X) == PLAIN
    assert not calls
    assert model(X).shape == (2, 2)
    assert len(calls) == 1


def test_data_parallel():
    assert_plain(nn.DataParallel(plain()))


@pytest.fixture
def process_group(tmp_path):
    distributed = torch.distributed
    if not distributed.is_available():
        pytest.skip("torch was built without torch.distributed")
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield distributed
    distributed.destroy_process_group()


def test_distributed_data_parallel(process_group):
    assert answer(nn.parallel.DistributedDataParallel(plain()), X) == PLAIN


def test_a_collective_operation_in_forward_is_refused_by_name(process_group):
    def forward(m, x):
        y = m.net(x)
        process_group.all_reduce(y)
        return y

    with pytest.raises(UnsupportedOperation, match=r"(?s)allreduce.*module.*outputs="):
        pathlen.measure(wrapped(forward), X)


def test_scripted_models_are_refused_and_so_are_scripted_parts_or_traced():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted, traced = torch.jit.script(plain()), torch.jit.trace(plain(), X)
    for model in (scripted, traced):
        with pytest.raises(TraceError, match=r"TorchScript.*scripted from"):
            pathlen.measure(model, X)
    # a scripted part runs the same operators
    assert answer(Model(lambda m, x: m.net(x), net=scripted), X) == PLAIN


# --- shared and computed weights ------------------------------------------------------------------


def test_tied_weights_and_shared_modules():
    tied = plain()
    tied[2].weight = nn.Parameter(tied[2].weight.detach())
    other = nn.Linear(4, 4)
    other.weight = tied[2].weight
    # one layer more of 4 * 4: the tied weight is read twice
    assert answer(nn.Sequential(tied[:3], other, *tied[3:]), X) == (4 * 96, 2, 2)
    # one block twice: 4^4 ways through two calls of it
    block = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    model = nn.Sequential(block, block)
    assert answer(model, torch.zeros(2, 4)) == (4**3, 2, 2)


def test_parametrizations_old_and_new():
    model = plain()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(model[0])
    nn.utils.parametrizations.weight_norm(model[2])
    nn.utils.parametrizations.spectral_norm(model[4])
    assert answer(model, X) == PLAIN
    model = plain()
    nn.utils.spectral_norm(model[0])
    nn.utils.parametrizations.orthogonal(model[2])
    assert answer(model, X) == PLAIN


def test_pruned_weights_change_no_connection():
    # connections are those of generic weights; the mask makes some of them zero
    model = plain()
    prune.random_unstructured(model[0], "weight", 0.5)
    assert answer(model, X) == PLAIN


# --- contexts and precision -----------------------------------------------------------------------


def under_autocast(m, x):
    with torch.autocast("cpu", torch.bfloat16):
        return m.net(x)


def test_autocast_inside_and_around():
    assert_plain(wrapped(under_autocast))
    with torch.autocast("cpu", torch.bfloat16):
        assert_plain(plain())


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradient_modes_inside_and_around(context):
    assert_plain(wrapped(lambda m, x: context()(m.net)(x)))
    model = plain()
    with context():
        assert_plain(model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precisions(dtype):
    assert answer(plain().to(dtype), X.to(dtype)) == PLAIN


def test_under_a_default_dtype():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert_plain(plain(), X.double())
    finally:
        torch.set_default_dtype(before)


# --- what forward does ----------------------------------------------------------------------------


def chance(m, x):
    noise = random.random() + float(np.random.rand())
    return m.net(x) if noise < 3 else x


ODD_FORWARDS = {
    "writes to its input": lambda m, x: m.net(x.mul_(2).add_(1)),
    "transposes in place": lambda m, x: m.net(x.clone().transpose_(0, 1).contiguous().t_()),
    "draws random numbers": chance,
    "draws a random tensor": lambda m, x: m.net(x + torch.randn_like(x)),
    "picks rows": lambda m, x: m.net(x[(x[:, 0] > -100).nonzero()[:, 0]]),
    "picks rows by a mask": lambda m, x: m.net(x)[x[:, 0] > -100],
    "reads a number": lambda m, x: m.net(x) * x.sum().item(),
    "loops until a condition": lambda m, x: m.net(x / 2 if x.max() > 1 else x),
    "functional call": lambda m, x: torch.func.functional_call(
        m.net, dict(m.net.named_parameters()), (x,)
    ),
    "maps over the batch": lambda m, x: torch.func.vmap(m.net)(x),
    "maps over batch and columns": lambda m, x: torch.func.vmap(torch.func.vmap(m.net))(x[None])[0],
    "prints": lambda m, x: m.net(x) + 0 * len(str(x.shape)),
}


READ_VALUES = ("picks rows", "picks rows by a mask", "reads a number", "loops until a condition")


@pytest.mark.parametrize("name", ODD_FORWARDS)
def test_odd_forwards(name):
    model, values = wrapped(ODD_FORWARDS[name]), X.clone()
    state = state_of(model)
    assert answer(model, X, status="example" if name in READ_VALUES else "exact") == PLAIN
    assert state_of(model) == state
    assert torch.equal(X, values)


def test_an_ensemble_by_vmap_is_its_members_side_by_side():
    # two networks on one input, averaged: twice the paths
    def forward(m, x):
        parameters, buffers = torch.func.stack_module_state(list(m.nets))

        def one(p, b):
            return torch.func.functional_call(m.nets[0], (p, b), (x,))

        return torch.func.vmap(one)(parameters, buffers).mean(0)

    model = Model(forward, nets=nn.ModuleList([plain(), plain()]))
    assert answer(model, X) == (192, 2, 2)


def gradient_by_autograd(m, x):
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(m.net(x).sum(), x, create_graph=True)[0]


def gradient_by_func(m, x):
    return torch.func.grad(lambda y: m.net(y).sum())(x)


def gradient_by_vjp(m, x):
    return torch.func.vjp(lambda y: m.net(y).sum(), x)[1](torch.ones(()))[0]


def gradient_by_jacobian(m, x):
    return torch.autograd.functional.jacobian(lambda y: m.net(y).sum(), x)


def gradient_by_functional(m, x):
    return torch.autograd.functional.vjp(lambda y: m.net(y).sum(), x)[1]


REVERSE = [
    gradient_by_autograd,
    gradient_by_func,
    gradient_by_vjp,
    gradient_by_jacobian,
    gradient_by_functional,
]


def differentiable(forward):
    return Model(forward, net=nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))).double()


@pytest.mark.parametrize("forward", REVERSE)
def test_gradients_in_forward(forward):
    # W1' diag(1 - tanh(W1 x)^2) w2: 4 units, a scalar function of 3 inputs each, into 3 outputs
    model = differentiable(forward)
    state = state_of(model)
    assert answer(model, X.double()) == (3 * 4 * 3, 1, 1)
    assert pathlen.verify(model, X.double()).ok
    assert state_of(model) == state


def test_an_energy_and_its_forces():
    # The energy alone has 3 * 4 paths, the forces three times as many: they are no constant.
    def forward(m, x):
        return m.net(x).sum(), -torch.autograd.functional.jacobian(lambda y: m.net(y).sum(), x)

    model = differentiable(forward)
    assert answer(model, X[:1].double()) == (3 * 4 * (1 + 3), 1, 1)
    assert pathlen.verify(model, X[:1].double()).ok


def tangent_by_func(m, x):
    return torch.func.jvp(m.net, (x,), (torch.ones_like(x),))[1]


def tangent_by_dual_numbers(m, x):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(m.net(forward_ad.make_dual(x, torch.ones_like(x)))).tangent


@pytest.mark.parametrize("forward", [tangent_by_func, tangent_by_dual_numbers])
def test_derivatives_in_forward_mode_are_refused(forward):
    with pytest.raises(TraceError, match=r"in forward mode .* take them in reverse mode"):
        pathlen.measure(differentiable(forward), X.double())


def test_derivatives_elsewhere_are_as_they_were():
    """Torch's functions are shut to a forward in inference mode, not to others meanwhile."""
    before = torch.autograd.functional._grad_preprocess
    seen = []

    def elsewhere():
        with torch.inference_mode():
            seen.append(torch.autograd.functional.jacobian(torch.sin, torch.zeros(1)).item())
        seen.append(torch.autograd.functional.jacobian(torch.sin, torch.zeros(1)).item())

    def forward(m, x):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        return m.net(x)

    assert_plain(wrapped(forward))
    assert seen == [0, 1]  # torch's own answers
    assert torch.autograd.functional._grad_preprocess is before


# --- sparse and nested tensors --------------------------------------------------------------------

ADJACENCY = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
LAYOUTS = {"dense": torch.clone, "coo": torch.Tensor.to_sparse, "csr": torch.Tensor.to_sparse_csr}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("product", [torch.mm, torch.matmul, torch.sparse.mm])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_graph_convolution_with_a_sparse_adjacency_matrix(layout, product):
    # nodes are positions, so that the matrix keeps channels apart: 2 * 4 * 1 paths over one ReLU
    class Convolution(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("adjacency", LAYOUTS[layout](ADJACENCY))
            self.a, self.b = nn.Linear(2, 4), nn.Linear(4, 1)

        def forward(self, x):
            return self.b(torch.relu(product(self.adjacency, self.a(x))))

    assert answer(Convolution(), torch.randn(3, 2)) == (8, 1, 1)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(
    "nest",
    [
        lambda x: torch.nested.as_nested_tensor([x[:1], x]),
        lambda x: torch.nested.nested_tensor_from_jagged(x, torch.tensor([0, 1, 2])),
    ],
    ids=["strided", "jagged"],
)
def test_nested_tensors_are_refused_with_a_way_out(nest):
    model = wrapped(lambda m, x: m.net(nest(x)).to_padded_tensor(0.0))
    state = state_of(model)
    with pytest.raises(TraceError, match=r"(?s)module.*nested tensor.*pad the sequences"):
        pathlen.measure(model, X)
    assert state_of(model) == state


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize(
    "forward",
    [lambda m, x: m.net(x.cuda()), lambda m, x: m.net(x) + torch.zeros(1, device="cuda")],
)
def test_a_model_that_needs_cuda_is_told_so(forward):
    model = wrapped(forward)
    state = state_of(model)
    with pytest.raises(ModelError, match=r"(?i)cuda"):
        pathlen.measure(model, X)
    assert state_of(model) == state


def test_outputs_of_transformers():
    from tests.vision import import_torchvision

    import_torchvision()
    from transformers.modeling_outputs import BaseModelOutput

    model = wrapped(lambda m, x: BaseModelOutput(last_hidden_state=m.net(x)))
    assert_plain(model)
    graph = pathlen.trace(model, X)
    names = [row.name for row in graph.layers if row.operation == "output"]
    assert names == ["last_hidden_state"]


def test_names_of_inputs_modules_and_outputs_may_be_the_same():
    def forward(m, net):
        return {"net": m.net(net)}

    model = wrapped(forward)
    model.forward = lambda net: forward(model, net)
    assert answer(model, X) == PLAIN
    names = [row.name for row in pathlen.trace(model, X).layers]
    assert "net" in names
    assert "net.output" in names
    assert answer(model, X, outputs="net") == PLAIN
