"""examples/clusters: every file parses, asks for what it runs on, and says what gcl understands."""

import importlib.util
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from gcl.config.compose import Overrides

FOLDER = Path(__file__).parents[2] / "examples" / "clusters"


def lines_of(script):
    return [line for line in script.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]


def gcl_words(line):
    """What follows gcl in a command line, and what stands before it."""
    words = shlex.split(line)
    place = words.index("gcl")
    return words[:place], words[place + 1 :]


def check(words):
    """The settings of a command compose."""
    command, *settings = words
    assert command in ("train", "evaluate")
    config = Overrides(["data=demo" if one == "data=my_catalog" else one for one in settings], None).config()
    assert command == "evaluate" or config.train.resume == "auto", "what starts again must continue"
    return config


@pytest.mark.parametrize("name", ["slurm.sh", "spot.sh"])
def test_scripts(name):
    subprocess.run(["bash", "-n", FOLDER / name], check=True)
    commands = [gcl_words(line) for line in lines_of((FOLDER / name).read_text()) if "gcl" in line]
    for _, words in commands:
        check(words)
    if name == "slurm.sh":
        asked = (FOLDER / name).read_text()
        assert "--signal=USR1@" in asked and "--requeue" in asked and all(w[0] == "srun" for w, _ in commands)
    else:
        before = commands[0][0]
        assert "--nnodes=1:4" in before and "--rdzv-backend=c10d" in before and before[-1] == "-m"


def test_num_nodes_is_what_torchrun_began(monkeypatch):
    for machines in ("1", "3"):
        monkeypatch.setenv("GROUP_WORLD_SIZE", machines)
        assert Overrides(["trainer=ddp"], None).config().trainer.num_nodes == int(machines)


def test_jobset():
    job = yaml.safe_load((FOLDER / "jobset.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (workers,) = job["spec"]["replicatedJobs"]
    spec = workers["template"]["spec"]
    assert spec["completionMode"] == "Indexed" and spec["backoffLimit"] == 0
    assert job["spec"]["failurePolicy"]["maxRestarts"] > 0
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    before, words = gcl_words(container["command"][-1])
    check(words)
    options = dict(word.lstrip("-").split("=", 1) for word in before if "=" in word)
    assert int(options["nnodes"]) == spec["parallelism"] == spec["completions"]
    assert int(options["nproc-per-node"]) == container["resources"]["limits"]["nvidia.com/gpu"]
    assert options["master-addr"] == f"{job['metadata']['name']}-{workers['name']}-0-0.{job['metadata']['name']}"
    assert int(options["master-port"]) == container["ports"][0]["containerPort"]


def test_ray_train():
    where = importlib.util.spec_from_file_location("ray_train", FOLDER / "ray_train.py")
    module = importlib.util.module_from_spec(where)
    where.loader.exec_module(module)
    trainer = check(module.WORDS).trainer
    assert trainer.devices * trainer.num_nodes == 32  # the workers that it asks for
