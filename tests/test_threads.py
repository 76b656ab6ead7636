"""Other threads go on while a model is traced, and find everything as it would be without."""

from __future__ import annotations

import copy
import logging
import multiprocessing
import random
import sys
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import random as python_draw
from typing import Any

import numpy as np
import pytest
import torch
from numpy.random import rand as numpy_draw
from torch import Tensor, nn
from torch.nn import functional

import pathlen
from pathlen.errors import PathlenError
from pathlen.one_thread import Diverted, exclusive, unlogged, unwarned
from pathlen.tracing.export import export_program
from pathlen.tracing.own_numbers import own_numbers
from pathlen.tracing.state import untouched_process
from pathlen.training import CifarResNet, make_linearizable
from tests.process_state import changed, functions, settings, snapshot
from tests.soak import soak

PATIENCE = 60  # seconds
from_data = pathlen.activity.from_data


class Pausing(nn.Module):
    """A model in the midst of whose forward other threads do something."""

    def __init__(self, reads: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)
        self.reads = reads
        self.inside, self.go_on = threading.Event(), threading.Event()

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        if self.reads:  # on tensors with values
            h = h * (1 + h.sum().item())
        self.inside.set()
        assert self.go_on.wait(PATIENCE)
        noise = torch.randn(4) + random.random() + np.random.rand()
        return self.last(h.to(x.dtype) + noise)


@contextmanager
def in_the_midst(trace: Callable[[Any, Any], Any], *, reads: bool = False) -> Iterator[None]:
    """A block within which another thread is in the forward of a model that it traces."""
    model = Pausing(reads)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            trace(model, torch.ones(2, 4))
        except BaseException as error:
            failures.append(error)
            model.inside.set()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert model.inside.wait(PATIENCE)
        yield
    finally:
        model.go_on.set()
        thread.join(PATIENCE)
    assert not failures, failures


TRACES = {
    "measure": (pathlen.measure, False),
    "on values": (pathlen.measure, True),
    "make_linearizable": (make_linearizable, False),
    "monitor": (pathlen.DepthMonitor, False),
    "from_data": (lambda model, x: from_data(model, [x] * 4), False),
    "verify": (lambda model, x: pathlen.verify(model, x, spellings=0), False),
}


@pytest.fixture(params=TRACES)
def traced(request: pytest.FixtureRequest) -> Iterator[None]:
    torch.manual_seed(0)
    trace, reads = TRACES[request.param]
    with in_the_midst(trace, reads=reads):
        yield


def draws(number: int) -> list[Any]:
    """What each generator of the process gives next, by functions of every kind."""
    return [
        (
            *(torch.rand(()).item(), torch.randperm(9).tolist()),
            *(random.random(), random.gauss(0, 1), random.sample(range(99), 3), python_draw()),
            *(
                np.random.rand(),
                np.random.permutation(9).tolist(),
                numpy_draw(),
                np.random.normal(),
            ),
        )
        for _ in range(number)
    ]


def seed() -> None:
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)


@pytest.mark.parametrize("name", TRACES)
def test_random_numbers_are_those_that_would_be_drawn_alone(name: str) -> None:
    seed()
    alone = draws(6)
    trace, reads = TRACES[name]
    model = Pausing(reads)
    model.go_on.set()
    trace(model, torch.ones(2, 4))  # what is drawn once, by imports and the like
    seed()
    found = draws(2)
    state = torch.default_generator.get_state()
    with in_the_midst(trace, reads=reads):
        torch.default_generator.set_state(state)  # making the model drew its weights
        found += draws(2)
    found += draws(2)
    assert found == alone


def test_modules_are_converted(traced: None) -> None:
    linear = nn.Linear(2, 2)
    assert linear.double().weight.dtype == torch.float64
    assert linear.half().weight.dtype == torch.float16
    assert linear.to(torch.bfloat16).weight.dtype == torch.bfloat16
    assert nn.LSTM(2, 2).to("meta").weight_ih_l0.is_meta


def test_settings_are_what_they_were(traced: None) -> None:
    inside = settings()
    assert inside["default dtype"] == torch.float32
    assert inside["fast path"]
    assert inside["gradients"]
    assert not inside["inference"]
    assert not inside["compiling"]
    assert inside["modes"] == (0, 0)
    assert set(inside["hooks of all modules"]) == {0}
    assert inside["garbage"][0]
    assert torch.zeros(1).dtype == torch.float32
    model = nn.Linear(2, 2)
    with torch.no_grad():
        assert not model(torch.ones(2)).requires_grad
    assert model(torch.ones(2)).requires_grad


def test_fused_kernels_are_used_and_give_what_they_gave() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x = torch.randn(2, 5, 8)

    def calls() -> list[str]:
        with torch.profiler.profile() as profile, torch.inference_mode():
            layer(x)
        return [event.name for event in profile.events()]

    with torch.inference_mode():
        alone = layer(x)
    fused = "aten::_transformer_encoder_layer_fwd"
    assert fused in calls()
    with in_the_midst(pathlen.measure):
        assert fused in calls()
        with torch.inference_mode():
            assert torch.equal(layer(x), alone)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's, of itself
def test_derivatives_are_taken(traced: None) -> None:
    x = torch.tensor([1.0, 2.0])
    expected = torch.diag(2 * x)
    assert torch.equal(functional_jacobian(lambda x: x**2, x), expected)
    assert torch.equal(torch.func.jacrev(lambda x: x**2)(x), expected)
    assert torch.equal(torch.func.jacfwd(lambda x: x**2)(x), expected)
    assert torch.equal(torch.func.jvp(lambda x: x**2, (x,), (torch.ones(2),))[1], 2 * x)


functional_jacobian = torch.autograd.functional.jacobian


def test_compiled_models_run_compiled() -> None:
    runs = []

    def backend(graph: Any, _: Any) -> Any:
        return lambda *args: runs.append(1) or graph(*args)

    torch.compiler.reset()
    model = torch.compile(nn.Linear(2, 2), backend=backend, fullgraph=True)
    expected = model(torch.ones(2))
    for _ in range(2):
        with in_the_midst(pathlen.measure):  # a warning of hooks on all modules is an error here
            assert torch.equal(model(torch.ones(2)), expected)
    assert len(runs) == 3
    assert model(torch.ones(2)).equal(expected)
    torch.compiler.reset()


def test_warnings_and_messages_are_given(caplog: pytest.LogCaptureFixture) -> None:
    with unwarned(), unlogged("torch._subclasses.fake_tensor"):
        warnings.warn("held back", stacklevel=1)
        logging.getLogger("torch._subclasses.fake_tensor").error("held back")
    found: list[Any] = []

    def other() -> None:
        try:
            warnings.warn("shown", stacklevel=1)
        except UserWarning as error:  # warnings are errors here
            found.append(error)
        logging.getLogger("torch._subclasses.fake_tensor").error("logged")

    with unwarned(), unlogged("torch._subclasses.fake_tensor"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert [str(error) for error in found] == ["shown"]
    assert caplog.messages == ["logged"]


def test_filters_put_back_by_another_thread_hold_nothing_back() -> None:
    before = list(warnings.filters)
    inside, done = threading.Event(), threading.Event()

    def hold() -> None:
        with unwarned():
            inside.set()
            done.wait(PATIENCE)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(PATIENCE)
    with warnings.catch_warnings():  # takes a copy of the filters, and puts back the list
        done.set()
        thread.join()
    assert warnings.filters == before


def test_modules_are_themselves_while_another_thread_exports() -> None:
    torch.manual_seed(0)
    x = torch.ones(2, 4)
    layers = {"first": nn.Linear(4, 4), "act": nn.GELU(), "last": nn.Linear(4, 4)}
    model = make_linearizable(nn.Sequential(OrderedDict(layers)), x)
    expected = model(x)
    with in_the_midst(lambda other, x: export_program(other, (x,), {})):
        assert type(model.first) is nn.Linear
        assert model.first is layers["first"]
        assert torch.allclose(model(x), expected)
        with pytest.raises(AttributeError, match="no attribute 'missing'"):
            _ = model.missing


def test_what_fx_puts_in_the_place_of_methods_is_there_for_one_thread() -> None:
    apart, x = nn.Linear(4, 4), torch.ones(2, 4)
    expected, found = apart(x), []

    class Starting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            thread = threading.Thread(target=lambda: found.append(apart(torch.ones(2, 4))))
            thread.start()
            thread.join()
            return x + 1

    with untouched_process():
        torch.fx.symbolic_trace(Starting())
    assert torch.equal(found[0], expected)  # the tracer knows no path of that module


def test_a_model_that_two_threads_trace_is_left_as_it_was() -> None:
    shared = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    shared[0].eval()
    modes = [module.training for module in shared.modules()]
    with in_the_midst(lambda model, x: pathlen.measure(nn.Sequential(shared, model), x)):
        thread = threading.Thread(target=pathlen.measure, args=(shared, torch.ones(1, 4)))
        thread.start()  # waits
    thread.join(PATIENCE)
    assert [module.training for module in shared.modules()] == modes


def raising(error: BaseException) -> nn.Module:
    class Raises(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            torch.manual_seed(0)
            random.seed(0)
            np.random.seed(0)
            raise error

    return Raises()


ERRORS = (KeyboardInterrupt(), SystemExit(), RuntimeError("no"), MemoryError())


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("name", ["measure", "make_linearizable", "from_data", "verify"])
def test_nothing_is_left_changed_after_an_error(name: str, error: BaseException) -> None:
    trace, _ = TRACES[name]
    pathlen.measure(nn.Linear(4, 4), torch.ones(1, 4))  # what is loaded at first is loaded now
    before = snapshot()
    with pytest.raises((type(error), PathlenError)):
        trace(raising(error), torch.ones(1, 4))
    assert changed(before, snapshot()) == []


def traced_things() -> dict[str, tuple[Any, Any]]:
    """Models of all kinds that tracing has to do something special for."""
    tiny = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

    class Converting(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.to(torch.float32) and x)

    class Differentiating(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            x = x.requires_grad_()
            return torch.autograd.grad(super().forward(x).square().sum(), x)[0]

    return {
        "encoder": (
            nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2),
            torch.ones(1, 3, 8),
        ),
        "images": (CifarResNet(8, width=4), torch.ones(1, 3, 8, 8)),
        "converting": (Converting(*copy.deepcopy(tiny)), torch.ones(1, 4)),
        "differentiating": (Differentiating(*copy.deepcopy(tiny)), torch.ones(1, 4)),
        "compiled": (torch.compile(copy.deepcopy(tiny), backend="eager"), torch.ones(1, 4)),
        "a function": (lambda x: functional.linear(x, torch.ones(3, 4)), torch.ones(2, 4)),
    }


def test_traces_that_overlap_change_nothing_for_good() -> None:
    things = traced_things()
    expected = {name: pathlen.measure(*own, exact=True).path_count for name, own in things.items()}
    before = snapshot()
    failures: list[BaseException] = []

    def work(names: list[str]) -> None:
        try:
            for name in names:
                assert pathlen.measure(*things[name], exact=True).path_count == expected[name]
        except BaseException as error:
            failures.append(error)

    names = [*things] * 2
    threads = [threading.Thread(target=work, args=(names[n:] + names[:n],)) for n in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert nn.Linear(2, 2).double().weight.dtype == torch.float64
        assert torch.backends.mha.get_fastpath_enabled()
        threads[0].join(0.01)
    assert not failures, failures
    now = snapshot()
    del before["torch"], now["torch"]  # the generator: this thread drew weights
    assert changed(before, now) == []


# ------------------------------------------------------------------ the mechanisms themselves


class Owner:
    @staticmethod
    def function(number: int) -> int:
        return number


def test_functions_are_diverted_for_one_thread_and_put_back() -> None:
    before = vars(Owner)["function"]
    diverted = Diverted([(Owner, "function")])
    found: list[int] = []
    with diverted.to(lambda name, original, args, kwargs: original(*args) + 1):
        assert Owner.function(1) == 2
        thread = threading.Thread(target=lambda: found.append(Owner.function(1)))
        thread.start()
        thread.join()
        with diverted.to(lambda name, original, args, kwargs: original(*args) + 10):
            assert Owner.function(1) == 11
        assert Owner.function(1) == 2
    assert found == [1]
    assert diverted.called_by_others
    assert vars(Owner)["function"] is before


def test_what_others_put_in_the_place_of_a_function_is_left() -> None:
    def theirs(number: int) -> int:
        return -number

    class Home:
        function = staticmethod(lambda number: number)

    with Diverted([(Home, "function")]).to(lambda *_: 5):
        Home.function = staticmethod(theirs)  # type: ignore[method-assign,assignment]
    assert Home.function(1) == -1


def every_draw() -> list[Any]:
    ones = torch.ones(8)
    query = torch.ones(1, 1, 3, 4)
    torch_draws = [
        torch.rand(3),
        torch.randn(2, 2),
        torch.randint(5, (4,)),
        torch.randint(2, 5, (4,)),
        torch.randperm(6),
        torch.rand_like(ones),
        torch.randn_like(ones),
        torch.randint_like(ones, 7),
        torch.empty(3).uniform_(),
        torch.empty(3).normal_(),
        torch.empty(3).exponential_(),
        torch.empty(3).random_(),
        torch.bernoulli(ones / 2),
        torch.multinomial(ones, 3),
        torch.normal(0.0, 1.0, (2,)),
        torch.normal(ones, 2.0),
        torch.poisson(ones),
        torch.native_dropout(ones, 0.5, True)[0],
        torch.rand(2, generator=torch.default_generator),
        functional.dropout(ones, 0.5),
        functional.alpha_dropout(ones, 0.5, True),
        functional.dropout2d(torch.ones(1, 4, 2, 2), 0.5),
        functional.rrelu(-ones, training=True),
        functional.gumbel_softmax(ones),
        functional.scaled_dot_product_attention(query, query, query, dropout_p=0.5),
        nn.LSTM(2, 2, 2, dropout=0.5)(torch.ones(3, 1, 2))[0].detach(),
        nn.init.trunc_normal_(torch.empty(4)),
        nn.init.orthogonal_(torch.empty(3, 3)),
    ]
    others = [random.random(), random.gauss(0, 1), random.choice(range(99)), random.getrandbits(9)]
    others += [np.random.rand(), np.random.sample(), np.random.choice(9, 3).tolist()]
    return [*(one.tolist() for one in torch_draws), *others, torch.initial_seed()]


def seeded(number: int) -> None:
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number)


def test_numbers_of_ones_own_are_those_of_the_seed_and_use_up_none() -> None:
    seeded(3)
    expected = every_draw()
    before = snapshot()
    for _ in range(2):
        with own_numbers(3):
            assert every_draw() == expected
        with own_numbers(0):
            seeded(3)
            assert every_draw() == expected
    assert changed(before, snapshot()) == []
    with own_numbers(None):
        ahead = every_draw()
    assert changed(before, snapshot()) == []
    assert every_draw() == ahead


def test_saved_states_of_generators_are_taken_up_again() -> None:
    before = snapshot()
    with own_numbers(3):
        state = torch.get_rng_state()
        first = torch.rand(3)
        torch.set_rng_state(state)
        assert torch.equal(torch.rand(3), first)
        with torch.random.fork_rng():
            torch.rand(3)
    assert changed(before, snapshot()) == []


def test_functions_imported_by_name_are_noticed_with_other_threads_about() -> None:
    class ByName(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.one(x)) if python_draw() < 0.5 else self.other(x)

    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        report = pathlen.measure(ByName(), torch.ones(1, 4))
    finally:
        stop.set()
        thread.join()
    assert report.status == "example"


def check_in_a_child(queue: Any) -> None:
    try:
        linear = nn.Linear(2, 2).double()
        left = [name for name, own in functions().items() if "diverted" in repr(own)]
        depth = pathlen.measure(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), torch.ones(1, 2))
        queue.put((linear.weight.dtype, left, depth.longest_path))
    except BaseException as error:
        queue.put(repr(error))


@pytest.mark.skipif(not hasattr(sys, "getdlopenflags"), reason="a system without fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_forked_off_meanwhile_is_free() -> None:
    torch.set_num_threads(1)
    context: Any = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    with in_the_midst(pathlen.measure):
        child = context.Process(target=check_in_a_child, args=(queue,))
        child.start()
        child.join(PATIENCE)
        assert child.exitcode == 0
    assert queue.get() == (torch.float64, [], 1)


def test_eight_threads_find_no_wrong_number_and_no_change() -> None:
    found = soak(6)
    assert found.failures == []
    assert found.changed == []
    assert len(found.rounds) == 8


def test_the_lock_nests() -> None:
    with exclusive(), exclusive():
        assert pathlen.measure(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), torch.ones(1, 2))
