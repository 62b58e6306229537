"""Work on the shop's own engine: the bytes are those of one process, whatever is killed on the way."""

import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import pytest

from gcl.cli import main
from gcl.distributed.engines import ENGINES, engine_of
from gcl.errors import ConfigError, ProcessLost
from helpers.small_catalog import drawn, pairs, products, write_table

pytestmark = pytest.mark.slow
MARK = "GCL_STARTED_BY"  # in the environment of a command and of all processes that it starts


def needs(engine):
    package = ENGINES[engine].package
    if find_spec(package) is None or (engine == "spark" and which("java") is None):
        pytest.skip(f"{package} is not installed here{', or Java is not' if engine == 'spark' else ''}")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """Its folder, and what one process prepares of it: 40 products with photos, one of them broken."""
    folder = tmp_path_factory.mktemp("catalog")
    rows = [row | {"photo": f"{number}.jpg"} for number, row in enumerate(products(40))]
    for number in range(40):
        (folder / f"{number}.jpg").write_bytes(drawn(number, size=(300, 200)) if number != 7 else b"broken")
    write_table(folder / "products.csv", rows)
    write_table(folder / "pairs.csv", pairs(40, 40))
    (folder / "conf" / "data").mkdir(parents=True)
    fields = "query:\n  query: {modality: text}\ndocument:\n  photo: {modality: image}\n  title: {modality: text}\n"
    (folder / "conf" / "data" / "small.yaml").write_text(
        f"name: small\nroot: {folder}\nproducts: products.csv\npairs: pairs.csv\nscore: score\n{fields}"
        "store: {image_side: 64}\n"
    )
    main(["prepare", "--config-dir", str(folder / "conf"), "data=small", f"cache_dir={folder / 'local'}"])
    return folder


def start(words):
    mark = secrets.token_hex(8)
    child = subprocess.Popen([sys.executable, "-m", "gcl", *map(str, words)], text=True, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, env=os.environ | {MARK: mark})  # fmt: skip
    child.mark = mark
    return child


def prepare(catalog, engine, *words):
    out = catalog / f"on-{engine}"
    given = ["prepare", "--config-dir", catalog / "conf", "data=small", f"cache_dir={out}"]
    return [*given, f"engine={engine}", "workers=2", "pieces=5", *words], out


def files(folder):
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".verified")
    return {path.relative_to(folder): path.read_bytes() for path in paths}


WORKER = {"ray": b"ray::gcl_piece", "spark": b"pyspark.daemon"}


def workers_of(child, engine):
    """Process numbers of the engine's workers, of those that a command has begun."""
    mark, found = f"{MARK}={child.mark}".encode(), []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            named = WORKER[engine] in (place / "cmdline").read_bytes()
            if named and mark in (place / "environ").read_bytes().split(b"\0"):
                found.append(int(place.name))
    return found


def finished_pieces(out):
    """{the last file of a piece that is whole: when it was written}"""
    found = {}
    for place in out.glob("*-parts-*/*/lost.json"):
        with suppress(FileNotFoundError):
            found[place] = place.stat().st_mtime_ns
    return found


@pytest.mark.parametrize("engine", ["daft", "spark", "ray"])
def test_prepared_on_an_engine_where_a_worker_and_the_command_are_killed(catalog, engine):
    needs(engine)
    words, out = prepare(catalog, engine)
    child, done = start(words), {}
    if engine != "daft":  # whose workers are threads
        os.kill(wait_for(lambda: workers_of(child, engine), child)[0], signal.SIGKILL)
    if engine == "ray":  # what is there when the command begins again is of no engine
        wait_for(lambda: finished_pieces(out), child)
        child.kill()
        child.communicate()
        done = finished_pieces(out)
        child = start([word if word != "workers=2" else "workers=1" for word in words])
    while child.poll() is None:
        for place, written in finished_pieces(out).items():
            assert done.get(place, written) == written, f"{place} was done twice"
        time.sleep(0.01)
    assert child.returncode == 0, child.communicate()[0]
    assert "products 40" in child.communicate()[0] and files(out) == files(catalog / "local")


def wait_for(look, child):
    end = time.monotonic() + 900  # workers import torch, on a machine that may be busy
    while not (found := look()):
        assert child.poll() is None and time.monotonic() < end, child.communicate()[0]
        time.sleep(0.01)
    return found


def test_embedded_on_ray_where_a_worker_is_killed_and_by_torchrun(finished, shop, tmp_path):
    needs("ray")
    given = ["--config-dir", shop / "conf", "data=shop", f"run={finished.path}", f"cache_dir={tmp_path}", "rows=8"]
    given += ["trainer.accelerator=cpu"]
    main(["embed", *map(str, given), f"out={tmp_path / 'local'}"])
    child = start(["embed", *given, f"out={tmp_path / 'ray'}", "engine=ray", "workers=2"])
    worker = wait_for(lambda: workers_of(child, "ray"), child)[0]
    os.kill(worker, signal.SIGSTOP)  # with a piece, so that the other worker cannot be done before this one is killed
    wait_for(lambda: list(tmp_path.glob(".ray.*/*.parquet")), child)
    os.kill(worker, signal.SIGKILL)
    said = child.communicate(timeout=900)[0]
    assert child.returncode == 0 and "48 products in 6 files" in said, said
    ranks = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "gcl", "embed"]
    words = [*given, f"out={tmp_path / 'torchrun'}", "engine=torchrun"]
    subprocess.run([sys.executable, *ranks, *map(str, words)], check=True, capture_output=True, timeout=900)
    assert files(tmp_path / "local") == files(tmp_path / "ray") == files(tmp_path / "torchrun")


def test_what_a_piece_says_is_a_sentence():
    on = engine_of("local", ("local", "ray"))
    with pytest.raises(ProcessLost, match="^no such piece$"):
        list(on.map(_refuse, ["b"]))
    with pytest.raises(ConfigError, match="engine=dask: there is no such engine here. There is: local, ray"):
        engine_of("dask", ("local", "ray"))
    with pytest.raises(ConfigError, match="workers=2: engine=local begins no workers; ray, daft or spark would"):
        engine_of("local", ("local", "ray", "daft", "spark"), 2)


def test_what_has_no_pieces_refuses_them(capsys):
    with pytest.raises(SystemExit):
        main(["prepare", "data=demo", "pieces=9"])
    assert "pieces=9: engine=local makes none; ray, daft or spark would." in capsys.readouterr().err


def _refuse(piece):
    raise ValueError("no such piece")
