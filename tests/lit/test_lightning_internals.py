"""One canary for each private member of Lightning and PyTorch that training uses: it fails when that changes."""

import inspect
import signal
from contextlib import contextmanager
from typing import get_args

import lightning.pytorch as pl
import pytest
import torch
from lightning.fabric import connector
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.utils.data import DataLoader

from gcl.lit import lightning_internals as internals
from gcl.lit.settings import PRECISIONS


@contextmanager
def canary(member, library="Lightning"):
    try:
        yield
    except (AssertionError, AttributeError, KeyError, TypeError) as error:
        pytest.fail(f"{library} changed {member}; see gcl/lit/lightning_internals.py ({error!r})")


class Line(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, index):
        loss = self.layer(batch).sum()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_the_settings_know_every_precision():
    with canary("_PRECISION_INPUT_STR"):
        names = {*get_args(connector._PRECISION_INPUT_STR), *get_args(connector._PRECISION_INPUT_STR_ALIAS)}
        assert names == {*PRECISIONS, "bf16-true", "16-true"} - {"auto"}  # two are refused with a reason


class Received(Logger):
    """What a logger gets: {step: metrics}."""

    name, version = "received", ""

    def __init__(self):
        super().__init__()
        self.rows = {}

    def log_metrics(self, metrics, step=None):
        self.rows[step] = metrics

    def log_hyperparams(self, *arguments, **options):
        pass


class Watch(Checkpoint):
    """Calls `look(trainer, index)` where ours are called: by the callbacks that Lightning calls last in a step."""

    def __init__(self, look):
        self.look = look

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        self.look(trainer, index)


def fit(look, *, batches=5, logger=False, path=None, **options):
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, logger=logger, enable_progress_bar=False, enable_model_summary=False,
        log_every_n_steps=2, callbacks=[Watch(look)], **options,
    )  # fmt: skip
    internals.leave_signals_alone(trainer)
    trainer.fit(Line(), DataLoader(torch.ones(batches, 1), batch_size=1), ckpt_path=path, weights_only=False)
    return trainer


def test_signals_are_left_alone(monkeypatch):
    during = []
    monkeypatch.setenv("SLURM_JOB_ID", "1")  # Lightning would also listen for a requeue
    before = signal.getsignal(signal.SIGTERM)
    with canary("Trainer._signal_connector"):
        fit(lambda trainer, index: during.append(signal.getsignal(signal.SIGTERM)))
        assert set(during) == {before}


def test_steps_are_logged_under_the_number_that_is_expected():
    received, expected = Received(), {}

    def look(trainer, index):
        if internals.is_logged(trainer):
            expected[internals.logged_step(trainer)] = internals.pending_log(trainer)
        else:
            assert internals.pending_log(trainer) is None

    with canary("epoch_loop._batches_that_stepped or _logger_connector"):
        fit(look, batches=4, logger=received)
        assert expected.keys() == received.rows.keys() == {1, 3}
        for step, row in received.rows.items():
            assert {"loss": pytest.approx(row["loss"])} == expected[step]


def test_the_position_in_the_epoch():
    seen = []
    with canary("epoch_loop.batch_progress"):
        fit(lambda trainer, index: seen.append(internals.progress(trainer)), batches=3)
        assert seen == [(1, 1, False), (2, 2, False), (3, 3, True)]


def test_an_ended_epoch_continues_with_more_batches(tmp_path):
    path, seen = tmp_path / "ended.ckpt", []

    def save_at_the_end(trainer, index):
        if internals.progress(trainer).is_last:
            trainer.save_checkpoint(path)

    with canary('checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]'):
        fit(save_at_the_end, batches=3)
        checkpoint = torch.load(path, weights_only=False)
        internals.continue_epoch(checkpoint, 2)
        assert checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"]
        internals.continue_epoch(checkpoint, 5)
        torch.save(checkpoint, path)
        fit(lambda trainer, index: seen.append(internals.progress(trainer).begun), batches=5, path=path)
        assert seen[0] == 4 and seen[-1] == 5


def test_all_ranks_share_the_data():
    strategy = ModelParallelStrategy(tensor_parallel_size=1)
    with canary("ModelParallelStrategy._data_parallel_size"):
        assert strategy._data_parallel_size == "auto"
        assert "self._data_parallel_size, self._tensor_parallel_size" in inspect.getsource(strategy.setup_environment)
        internals.share_data_among_all_ranks(strategy, 6)
        assert strategy._data_parallel_size == 6


def test_loader_workers_end():
    loader = DataLoader(torch.ones(4, 1), num_workers=1, persistent_workers=True)
    internals.end_workers(loader)  # nothing has begun
    with canary("DataLoader._iterator, _shutdown_workers or _workers", "PyTorch"):
        assert len(list(loader)) == 4
        workers = list(loader._iterator._workers)
        assert workers and all(worker.is_alive() for worker in workers)
        internals.end_workers(loader)
        for worker in workers:
            worker.join(900)
        assert not any(worker.is_alive() for worker in workers)
        assert len(list(loader)) == 4
        internals.end_workers(loader)


def test_a_scaler_divides_before_the_step():
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))], fused=True)
    with canary("Optimizer._step_supports_amp_scaling", "PyTorch"):
        assert optimizer._step_supports_amp_scaling
        internals.step_unscaled(optimizer)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        (parameter,) = optimizer.param_groups[0]["params"]
        scaler.scale((parameter * torch.tensor([1.0, 2.0])).sum()).backward()
        scaler.unscale_(optimizer)
        assert parameter.grad.tolist() == [1.0, 2.0]
        scaler.step(optimizer)
        assert parameter.tolist() == pytest.approx([-1e-3, -1e-3], rel=1e-2)
        assert not optimizer._step_supports_amp_scaling and not optimizer.param_groups[0]["fused"]
