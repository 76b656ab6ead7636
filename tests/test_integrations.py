"""Depth in the logs of Lightning, the Hugging Face Trainer, Accelerate, TensorBoard and W&B.

The law of this file: what a library has logged is what `pathlen.measure` says of the model at that
time. Logs are read back from the files that the libraries write.
"""

from __future__ import annotations

import csv
import json
import os
import struct
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pathlen
from pathlen.errors import MonitorError, PathlenError, TraceError
from pathlen.integrations import DepthLogger, DepthScalars
from pathlen.training import SparsityPrior, make_linearizable, parameter_groups
from pathlen.wrappers import unwrapped
from tests.vision import import_torchvision

EXAMPLE = torch.zeros(1, 4)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def network() -> nn.Module:
    """Two hidden layers with slopes, one behind a skip, all of them 0."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 2))
    return make_linearizable(model, EXAMPLE)


def linearize_some(model: nn.Module, number: int) -> None:
    with torch.no_grad():
        model[1].slope[:number] = 1


def measured(model: nn.Module, *args, **kwargs) -> dict[str, float]:
    """What is to be in a log, found in the other way."""
    report = pathlen.measure(model, *args, **kwargs)
    return {
        "depth/napl": report.normalized_average_path_length,
        "depth/apl": report.average_path_length,
        "depth/active_units": report.num_active,
    }


def data(number: int = 32) -> TensorDataset:
    return TensorDataset(torch.randn(number, 4), torch.randint(0, 2, (number,)))


# ------------------------------------------------------------------ the numbers


def test_scalars_are_what_is_measured():
    model = network()
    depth = DepthScalars(model, EXAMPLE)
    for linear in (0, 3, 8):
        linearize_some(model, linear)
        assert depth.read() == pytest.approx(measured(model, EXAMPLE), rel=1e-12)


def test_scalars_of_layers_and_other_names():
    model = network()
    linearize_some(model, 3)
    found = DepthScalars(model, EXAMPLE, layers=True, prefix="net").read()
    assert {name: found[name] for name in found if name.count("/") == 2} == {
        "net/active_units/1": 5,
        "net/active_units/3.lerp": 6,
    }
    assert found["net/active_units"] == 11


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
def test_wrappers_are_seen_through(one_process):
    model = network()
    assert unwrapped(model) is model
    assert unwrapped(torch.compile(model)) is model
    parallel = nn.parallel.DistributedDataParallel(model)
    depth = DepthScalars(torch.compile(parallel), EXAMPLE)
    linearize_some(model, 5)
    assert depth.read() == pytest.approx(measured(model, EXAMPLE), rel=1e-12)


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, nn.parallel.DistributedDataParallel, torch.compile]
)
def test_monitors_and_priors_take_wrapped_models_as_those_inside(one_process, wrap):
    model = network()
    wrapped = wrap(model)
    for followed in (model, wrapped):
        for trained in (model, wrapped):
            monitor = pathlen.DepthMonitor(followed, EXAMPLE)
            prior = SparsityPrior(trained, omega=0.1, weights="napl", monitor=monitor)
            assert set(prior.state_dict()["frozen"]) == {"1.slope", "3.slope"}
            assert prior.num_units == 14


@pytest.fixture
def one_process(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def sharded(model):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    return fully_shard(model, mesh=init_device_mesh("cpu", (1,)))


# after a forward, and until the next pass backward, FSDP shows whole parameters
USES = {
    "at once": lambda model: None,
    "after a forward": lambda model: model(EXAMPLE),
    "after a forward without gradients": lambda model: forward_alone(model),
    "after a step": lambda model: model(EXAMPLE).sum().backward(),
}


def forward_alone(model):
    with torch.no_grad():
        model(EXAMPLE)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("inside", [False, True])
def test_a_model_whose_parameters_are_sharded_is_refused(one_process, use, inside):
    model = network()
    linearize_some(model, 3)
    depth = DepthScalars(model, EXAMPLE)
    prior = SparsityPrior(model, omega=0.1)
    whole = sharded(nn.Sequential(model)) if inside else sharded(model)
    USES[use](whole)
    with pytest.raises(MonitorError, match=r"slope' is sharded over devices since .* so that this"):
        depth.read()
    for ask in (DepthScalars, pathlen.measure, pathlen.DepthMonitor):
        with pytest.raises(TraceError, match=r"is sharded over devices \('0.weight' and 7 more\)"):
            ask(model, EXAMPLE)
    for act in (prior.penalty, prior.step, lambda: SparsityPrior(model, omega=0.1)):
        with pytest.raises(PathlenError, match=r"slope' is sharded over devices, so that this"):
            act()


def test_a_monitor_without_slopes_refuses_a_sharded_model(one_process):
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    monitor = pathlen.DepthMonitor(model, torch.ones(1, 4))
    sharded(model)(torch.ones(1, 4))
    with pytest.raises(MonitorError, match="sharded over devices since"):
        monitor.update()


@pytest.mark.filterwarnings("ignore:FSDP is switching to use `NO_SHARD`", "ignore:.*deprecated")
def test_a_model_in_the_older_way_of_sharding_is_refused(one_process):
    from torch.distributed.fsdp import FullyShardedDataParallel

    model = FullyShardedDataParallel(network(), device_id=torch.device("cpu"))
    for ask in (DepthScalars, pathlen.measure):
        with pytest.raises(TraceError, match="'the whole model' and 0 more"):
            ask(model, EXAMPLE)


# ------------------------------------------------------------------ a loop of one's own


def log_of_a_loop(*sinks, steps=6, every=2) -> dict[int, dict[str, float]]:
    """Log a network that gets more linear; what was to be logged, by step."""
    model = network()
    logger = DepthLogger(DepthScalars(model, EXAMPLE), *sinks, every_n_steps=every)
    expected = {}
    for step in range(steps):
        linearize_some(model, step)
        written = logger.log(step)
        if step % every == 0:
            expected[step] = measured(model, EXAMPLE)
            assert written == pytest.approx(expected[step], rel=1e-12)
        else:
            assert written is None
    return expected


def tensorboard_scalars(folder) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def assert_same_series(found: dict, expected: dict[int, dict[str, float]], prefix="") -> None:
    """Series by name hold the numbers that were expected by step, in single precision."""
    for name in ("depth/napl", "depth/apl", "depth/active_units"):
        series = [(step, pytest.approx(row[name], rel=1e-6)) for step, row in expected.items()]
        assert found[prefix + name] == series


def test_tensorboard(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path) as writer:
        expected = log_of_a_loop(writer)
    assert list(expected) == [0, 2, 4]
    assert_same_series(tensorboard_scalars(tmp_path), expected)


def wandb_history(folder: Path) -> list[dict[str, float]]:
    """The history in the file of an offline run, once its own process has written the end."""
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    until = time.monotonic() + 300
    while True:
        rows, ended = wandb_records(path.read_bytes())
        if ended:
            return rows
        assert time.monotonic() < until, "the file of the run has no end"
        time.sleep(0.1)


def wandb_records(content: bytes) -> tuple[list[dict[str, float]], bool]:
    """Rows of the history in a log in the format of LevelDB, and whether the run has ended."""
    from wandb.proto import wandb_internal_pb2

    place, record, rows, ended = 7, b"", [], False  # 7: the file's own head
    while place + 7 <= len(content):
        if place % 32768 > 32768 - 7:  # no head of a part fits the rest of the block
            place += -place % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part of several
            parsed = wandb_internal_pb2.Record.FromString(record)
            record = b""
            ended |= parsed.WhichOneof("record_type") == "exit"
            if parsed.WhichOneof("record_type") == "history":
                items = parsed.history.item
                rows.append(
                    {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items}
                )
    return rows, ended


def test_weights_and_biases_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    import wandb

    settings = wandb.Settings(
        mode="offline", silent=True, console="off", disable_git=True, x_disable_stats=True
    )
    with wandb.init(project="depth", dir=tmp_path, settings=settings) as run:
        expected = log_of_a_loop(run)
    history = wandb_history(tmp_path)
    assert [row["_step"] for row in history] == list(expected)
    for row, numbers in zip(history, expected.values(), strict=True):
        assert {name: row[name] for name in numbers} == pytest.approx(numbers, rel=1e-12)


def test_accelerate(tmp_path):
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, log_with="tensorboard", project_dir=tmp_path)
    accelerator.init_trackers("run")
    expected = log_of_a_loop(accelerator)
    accelerator.end_training()
    assert_same_series(tensorboard_scalars(tmp_path / "run"), expected)


def test_fabric(tmp_path):
    import_torchvision()
    from lightning import Fabric
    from lightning.fabric.loggers import CSVLogger

    fabric = Fabric(accelerator="cpu", devices=1, loggers=[CSVLogger(tmp_path)])
    expected = log_of_a_loop(fabric)
    fabric.logger.finalize("success")
    (path,) = tmp_path.rglob("metrics.csv")
    rows = [
        {k: float(v) for k, v in row.items()}
        for row in csv.DictReader(path.read_text().splitlines())
    ]
    assert [row["step"] for row in rows] == list(expected)
    for row, numbers in zip(rows, expected.values(), strict=True):
        assert {name: row[name] for name in numbers} == pytest.approx(numbers, rel=1e-12)


def test_any_function_and_nothing_else():
    rows = {}
    expected = log_of_a_loop(lambda scalars, step: rows.update({step: scalars}), every=3)
    assert list(rows) == list(expected) == [0, 3]
    depth = DepthScalars(network(), EXAMPLE)
    with pytest.raises(PathlenError, match="an object of type str; give a TensorBoard writer"):
        DepthLogger(depth, "runs/1")
    with pytest.raises(PathlenError, match="every_n_steps=0"):
        DepthLogger(depth, every_n_steps=0)


# ------------------------------------------------------------------ Lightning

# Lightning asks torch's pytree in a way that torch calls outdated, and wants more workers.
lightning_warnings = pytest.mark.filterwarnings(
    "ignore:`isinstance.treespec, LeafSpec.:FutureWarning",
    "ignore:The 'train_dataloader' does not have many workers",
)


def lightning_module(prior_options=(), learning_rate=0.05, schedule=None):
    import_torchvision()
    from lightning.pytorch import LightningModule

    class Net(LightningModule):
        def __init__(self):
            super().__init__()
            self.model = network()
            self.example_input_array = EXAMPLE
            self.prior = SparsityPrior(self.model, **{"omega": 0.0, **dict(prior_options)})
            self.rates = []

        def forward(self, x):
            return self.model(x)

        def training_step(self, batch, _):
            x, y = batch
            self.rates.append(self.optimizers().param_groups[0]["lr"])
            loss = nn.functional.cross_entropy(self(x), y) + self.prior.penalty()
            self.log("loss", loss)
            return loss

        def configure_optimizers(self):
            groups = parameter_groups(self.model, weight_decay=0.0)
            optimizer = torch.optim.SGD(groups, lr=learning_rate)
            if schedule is None:
                return optimizer
            scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    return Net()


def lightning_trainer(folder, *callbacks, **options):
    from lightning.pytorch import Trainer
    from lightning.pytorch.loggers import CSVLogger

    return Trainer(
        **{
            "accelerator": "cpu",
            "max_epochs": 3,
            "logger": CSVLogger(folder),
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "default_root_dir": folder,
            "callbacks": list(callbacks),
            **options,
        }
    )


def measure_spy(name):
    """A callback that measures at a hook, by Lightning's step for loggers."""
    from lightning.pytorch import Callback

    class Spy(Callback):
        def __init__(self):
            self.found = {}

    def hook(self, trainer, pl_module, *_):
        self.found[trainer.global_step - 1] = measured(pl_module.model, EXAMPLE)

    setattr(Spy, name, hook)
    return Spy()


def csv_rows(folder) -> dict[int, dict[str, float]]:
    (path,) = Path(folder).rglob("metrics.csv")
    rows = csv.DictReader(path.read_text().splitlines())
    return {
        int(row["step"]): {name: float(value) for name, value in row.items() if value}
        for row in rows
        if row["depth/napl"]
    }


@lightning_warnings
def test_lightning_logs_steps(tmp_path):
    net = lightning_module({"omega": 3.0})
    from pathlen.integrations import DepthCallback

    spy = measure_spy("on_train_batch_end")
    callback = DepthCallback(every_n_steps=3, layers=True, prior=net.prior)
    trainer = lightning_trainer(tmp_path, callback, spy, max_epochs=4)
    trainer.fit(net, DataLoader(data(), batch_size=4))
    rows = csv_rows(tmp_path)
    assert list(rows) == list(range(2, 32, 3))  # and not in between, where Lightning logs too
    assert trainer.callback_metrics["depth/active_units"] == rows[29]["depth/active_units"]
    for step, row in rows.items():
        assert {name: row[name] for name in spy.found[step]} == pytest.approx(spy.found[step])
    # the prior was stepped: units got linear while the model trained
    assert rows[2]["depth/active_units"] == 14
    assert rows[29]["depth/active_units"] < 14
    assert rows[29]["depth/active_units"] == net.prior.num_active
    layers = [rows[29][f"depth/active_units/model.{name}"] for name in ("1", "3.lerp")]
    assert sum(layers) == rows[29]["depth/active_units"]


@lightning_warnings
def test_lightning_logs_epochs_where_early_stopping_sees_them(tmp_path):
    net = lightning_module()
    from lightning.pytorch.callbacks import EarlyStopping

    from pathlen.integrations import DepthCallback

    # nothing gets linear without a prior, so depth does not fall, and that is noticed
    stopping = EarlyStopping("depth/napl", patience=2, check_on_train_epoch_end=True)
    spy = measure_spy("on_train_epoch_end")
    callback = DepthCallback(EXAMPLE, module="model")
    trainer = lightning_trainer(tmp_path, callback, stopping, spy, max_epochs=9)
    trainer.fit(net, DataLoader(data(), batch_size=8))
    rows = csv_rows(tmp_path)
    assert list(rows) == [3, 7, 11]
    for step, row in rows.items():
        assert {name: row[name] for name in spy.found[step]} == pytest.approx(spy.found[step])


@lightning_warnings
@pytest.mark.parametrize("batches", [1, 2])
def test_lightning_steps_the_prior_with_the_rate_of_the_step(tmp_path, monkeypatch, batches):
    net = lightning_module({"method": "proximal"}, schedule=lambda step: 1 / (1 + step))
    from pathlen.integrations import DepthCallback

    taken, step = [], SparsityPrior._step
    monkeypatch.setattr(
        SparsityPrior, "_step", lambda self, rate=0.0: (taken.append(rate), step(self, rate))
    )
    trainer = lightning_trainer(
        tmp_path, DepthCallback(prior=net.prior), accumulate_grad_batches=batches, max_epochs=1
    )
    trainer.fit(net, DataLoader(data(), batch_size=4))
    assert taken == net.rates[batches - 1 :: batches]
    assert taken == pytest.approx([0.05 / (1 + number) for number in range(8 // batches)])


@lightning_warnings
def test_lightning_checkpoints_keep_the_prior(tmp_path):
    net = lightning_module({"omega": 3.0})
    from pathlen.integrations import DepthCallback

    callback = DepthCallback(prior=net.prior, every_n_steps=5)
    trainer = lightning_trainer(tmp_path / "a", callback, max_epochs=4)
    trainer.fit(net, DataLoader(data(), batch_size=4))
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    frozen = net.prior.num_active
    assert frozen < 14

    again = lightning_module({"omega": 1.0})
    callback = DepthCallback(prior=again.prior, every_n_steps=5)
    trainer = lightning_trainer(tmp_path / "b", callback, max_epochs=5)
    trainer.fit(again, DataLoader(data(), batch_size=4), ckpt_path=tmp_path / "c.ckpt")
    assert again.prior.omega == 3.0
    assert again.prior.num_active <= frozen
    assert list(csv_rows(tmp_path / "b")) == [34, 39]  # as if nothing had happened between


@lightning_warnings
def test_lightning_is_told_what_is_missing(tmp_path):
    net = lightning_module()
    from pathlen.integrations import DepthCallback

    loader = DataLoader(data(), batch_size=8)
    net.example_input_array = None
    with pytest.raises(PathlenError, match="set example_input_array in Net"):
        lightning_trainer(tmp_path, DepthCallback()).fit(net, loader)
    with pytest.raises(PathlenError, match="every_n_steps=0"):
        DepthCallback(every_n_steps=0)


TWO_PROCESSES = """
    import json
    import sys
    from pathlib import Path

    import torch
    from torch.utils.data import DataLoader
    from tests.test_integrations import data, lightning_module, lightning_trainer, measured, EXAMPLE

    torch.manual_seed(0)
    net = lightning_module({"omega": 3.0})
    from pathlen.integrations import DepthCallback

    callback = DepthCallback(every_n_steps=2, prior=net.prior)
    folder = Path(sys.argv[1])
    trainer = lightning_trainer(
        folder, callback, devices=2, strategy="ddp", max_epochs=8
    )
    trainer.fit(net, DataLoader(data(), batch_size=4))
    metrics = trainer.callback_metrics.items()
    found = {name: float(value) for name, value in metrics if name.startswith("depth/")}
    expected = measured(net.model, EXAMPLE)
    numbers = {"rank": trainer.global_rank, "found": found, "expected": expected}
    (folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(numbers))
"""


@pytest.mark.slow
def test_lightning_in_two_processes(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(TWO_PROCESSES))
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "logs")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    both = [json.loads((tmp_path / "logs" / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    for numbers in both:
        assert numbers["found"] == pytest.approx(numbers["expected"], rel=1e-6)
    assert both[0]["found"] == both[1]["found"]
    assert both[0]["found"]["depth/active_units"] < 14
    # one of them wrote, each step once
    (path,) = (tmp_path / "logs").rglob("metrics.csv")
    rows = csv.DictReader(path.read_text().splitlines())
    assert [int(row["step"]) for row in rows if row["depth/napl"]] == list(range(1, 32, 2))


# ------------------------------------------------------------------ the Hugging Face Trainer

TOKENS = {"input_ids": torch.zeros(1, 6, dtype=torch.long)}


def bert():
    import_torchvision()
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        vocab_size=30,
        max_position_embeddings=8,
    )
    return make_linearizable(BertForSequenceClassification(config), None, TOKENS)


def hugging_face_trainer(model, folder, prior=None, *callbacks, **options):
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Penalized(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, **others):
            loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **others)
            loss = loss + (0 if prior is None else prior.penalty())
            return (loss, outputs) if return_outputs else loss

    class Spy(TrainerCallback):
        """Measures whenever something is logged."""

        def __init__(self):
            self.found = []

        def on_log(self, args, state, control, **kwargs):
            self.found.append((state.global_step, measured(kwargs["model"], kwargs=TOKENS)))

    items = [
        {"input_ids": torch.randint(0, 30, (6,)), "labels": number % 2} for number in range(32)
    ]
    arguments = {
        "output_dir": str(folder),
        "num_train_epochs": 3,
        "per_device_train_batch_size": 8,
        "logging_steps": 2,
        "eval_strategy": "epoch",
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "max_grad_norm": 0,  # no clipping: the gradient of the penalty is large
        **options,
    }
    spy = Spy()
    trainer = Penalized(
        model=model,
        args=TrainingArguments(**arguments),
        train_dataset=items,
        eval_dataset=items,
        optimizers=(torch.optim.SGD(parameter_groups(model, weight_decay=0.0), lr=0.1), None),
        callbacks=[*callbacks, spy],
    )
    return trainer, spy


def test_the_trainer_logs_depth(tmp_path):
    model = bert()
    from pathlen.integrations import DepthTrainerCallback

    prior = SparsityPrior(model, omega=10.0)
    callback = DepthTrainerCallback(kwargs=TOKENS, prior=prior)
    trainer, spy = hugging_face_trainer(model, tmp_path, prior, callback)
    trainer.train()
    history = trainer.state.log_history
    assert len(history) == len(spy.found) == 6 + 3 + 1  # steps, evaluations, the summary
    for row, (step, numbers) in zip(history, spy.found, strict=True):
        assert row["step"] == step
        assert {name: row[name] for name in numbers} == pytest.approx(numbers, rel=1e-12)
    assert history[0]["depth/active_units"] > history[-1]["depth/active_units"]
    assert history[-1]["depth/active_units"] == prior.num_active
    metrics = trainer.evaluate()
    expected = measured(model, kwargs=TOKENS)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-12)
    assert "eval_loss" in metrics


def test_the_trainer_reports_depth_to_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "logs"))
    model = bert()
    from pathlen.integrations import DepthTrainerCallback

    trainer, spy = hugging_face_trainer(
        model, tmp_path, report_to=["tensorboard"], eval_strategy="no"
    )
    callback = DepthTrainerCallback(kwargs=TOKENS)
    callback.add_to(trainer)
    assert trainer.callback_handler.callbacks[0] is callback
    assert trainer.callback_handler.callbacks.count(callback) == 1
    trainer.train()
    series = tensorboard_scalars(tmp_path / "logs")["train/depth/apl"]
    expected = [(step, pytest.approx(row["depth/apl"])) for step, row in spy.found]
    assert series == expected
    assert len(series) == 7


def test_the_trainer_steps_the_prior_with_the_rate_of_the_step(tmp_path, monkeypatch):
    model = bert()
    from pathlen.integrations import DepthTrainerCallback

    taken, step = [], SparsityPrior._step
    prior = SparsityPrior(model, omega=0.1, method="proximal")
    monkeypatch.setattr(
        SparsityPrior, "_step", lambda self, rate=0.0: (taken.append(rate), step(self, rate))
    )
    callback = DepthTrainerCallback(kwargs=TOKENS, prior=prior)
    trainer, _ = hugging_face_trainer(
        model, tmp_path, prior, callback, eval_strategy="no", lr_scheduler_type="linear"
    )
    trainer.train()
    # twelve steps fall linearly from 0.1 to 0
    assert taken == [pytest.approx(0.1 * (1 - number / 12)) for number in range(12)]


def test_the_trainer_needs_an_example():
    import_torchvision()
    from pathlen.integrations import DepthTrainerCallback

    with pytest.raises(PathlenError, match="input_ids"):
        DepthTrainerCallback()


def test_slopes_of_one_rate():
    from pathlen.training.groups import rate_of_slopes

    model = network()
    slopes = first, second = model[1].slope, model[3].slope
    assert rate_of_slopes(slopes, [torch.optim.SGD([model[0].weight], lr=0.1)]) is None
    one = torch.optim.SGD([first, second], lr=0.2)
    assert rate_of_slopes(slopes, [torch.optim.SGD([model[0].weight], lr=0.1), one]) == 0.2
    two = torch.optim.SGD([{"params": [first], "lr": 0.1}, {"params": [second]}], lr=0.2)
    with pytest.raises(PathlenError, match=r"the learning rates \[0.1, 0.2\]"):
        rate_of_slopes(slopes, [two])


# ------------------------------------------------------------------ without the libraries


@pytest.mark.parametrize(
    ("name", "library", "module"),
    [
        ("DepthCallback", "lightning", "lightning_callback"),
        ("DepthTrainerCallback", "transformers", "trainer_callback"),
    ],
)
def test_a_library_that_is_not_there(monkeypatch, name, library, module):
    import pathlen.integrations as integrations

    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"pathlen.integrations.{module}", raising=False)
    monkeypatch.delitem(vars(integrations), name, raising=False)
    for part in [key for key in sys.modules if key.startswith(f"{library}.")]:
        monkeypatch.delitem(sys.modules, part)
    with pytest.raises(ImportError, match=rf"pip install 'pathlen\[{library}\]'"):
        getattr(integrations, name)


def test_names_that_are_not_there():
    import pathlen.integrations as integrations

    assert set(integrations.__all__) <= set(dir(integrations))
    with pytest.raises(AttributeError, match="attribute DepthCalback"):
        _ = integrations.DepthCalback
