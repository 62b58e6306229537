"""Every logger leaves its files; none leaves none."""

import pytest


@pytest.mark.parametrize(
    "logger, pattern",
    [("wandb", "wandb/offline-run-*"), ("tensorboard", "events.out.tfevents.*"), ("none", None)],
)
def test_a_logger_writes_its_files(train, logger, pattern):
    words = [f"logger={logger}", "train.max_steps=2"] + (["logger.offline=true"] if logger == "wandb" else [])
    run = train(*words)
    if pattern:
        assert list(run.path.rglob(pattern.split("/")[-1]))
    assert (run.path / "metrics.csv").exists() is False
