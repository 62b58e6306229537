"""Ray Train: Ray places the processes and starts them again; gcl finds its ranks in the environment that Ray sets.

python examples/clusters/ray_train.py         # four machines of eight GPUs
"""

WORDS = [
    "train", "trainer=ddp", "trainer.devices=8", "trainer.num_nodes=4", "train.resume=auto",
    "run_dir=/shared/runs/shoes", "cache_dir=/shared/prepared", "data=my_catalog", "model=siglip-B",
    "train.batch_size=16384",
]  # fmt: skip


def work(config: dict) -> None:
    from gcl.cli import main

    main(config["words"])


def trainer(words: list[str] = WORDS, *, workers: int = 32, gpu: bool = True):
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    return TorchTrainer(
        work,
        train_loop_config={"words": words},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu),
        run_config=RunConfig(name="gcl", failure_config=FailureConfig(max_failures=100)),
    )


if __name__ == "__main__":
    trainer().fit()
