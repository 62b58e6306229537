"""`gcl judge` as a process: killed between judgments it loses none, and what it leaves is taken by `gcl evaluate`."""

import csv
import json
import os
import re
import signal
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress

import pytest

from gcl.cli import main
from gcl.commands.judge import JudgeOptions, pool_of
from gcl.config.compose import Overrides
from gcl.retrieval.tasks.judgments import write_judgments
from gcl.run.folder import config_of
from helpers.judged_shop import means
from helpers.ports import free_port

pytest.importorskip("uvicorn", reason="the page needs the extra: pip install 'gcl-trainer[serve]'")


def words_of(folder, out, port):
    return ["judge", "--config-dir", str(folder / "conf"), "data=judged", "models=[tiny]", f"port={port}", "depth=3",
            f"cache_dir={folder / 'cache'}", f"out={out}", "evaluate.tasks=[table]"]  # fmt: skip


@contextmanager
def judging(words, log):
    """The command in a process of its own (a fork: its imports are done), once it serves; yields its number."""
    log.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
            os.dup2(1, 2)
            sys.stdout = sys.stderr = open(1, "w", buffering=1)
            main(words)
        finally:
            os._exit(1)
    try:
        end = time.monotonic() + 900
        while "pairs to judge" not in (log.read_text() if log.exists() else ""):
            assert time.monotonic() < end and not os.waitpid(child, os.WNOHANG)[0], log.read_text()
            time.sleep(0.05)
        yield child
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(child, 0)


def ask(port, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{path}", data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=900) as answer:
        return json.loads(answer.read())


def test_killed_between_judgments_it_loses_none_and_the_measurement_takes_them(judged, plain, tmp_path, capfd):
    folder, _, evaluate = judged
    port, graded = free_port(), {}
    words, log = words_of(folder, tmp_path / "out", port), tmp_path / "log"
    with judging(words, log) as child:
        for grade in (4, 0, 3, 4):
            key = tuple(ask(port, "api/next?judge=Ann")["pair"]["key"])
            ask(port, "api/judge", {"judge": "Ann", "pair": key, "grade": grade})
            graded[key] = grade
        state = ask(port, "api/next?judge=Ann")
        pool = state["progress"]["pool"]
        seen = write_judgments(tmp_path / "seen.csv", {tuple(state["pair"]["key"]): 1})
        with pytest.raises(SystemExit):
            main(words_of(folder, tmp_path / "out", free_port()))
        assert f"The folder of judgments {tmp_path}/out is in use by process {child}" in capfd.readouterr().err
        os.kill(child, signal.SIGKILL)
    with judging([*words, f"judgments={seen}"], log) as child:
        state = ask(port, "api/next?judge=Ann")
        assert state["progress"]["mine"] == 4 and tuple(state["pair"]["key"]) not in graded
        assert state["progress"]["pool"] == pool - 1
        os.kill(child, signal.SIGINT)
        os.waitpid(child, 0)
    said = log.read_text()
    file = tmp_path / "out" / "qrels.csv"
    assert re.search(
        rf"4 grades by 1 judge: 4 of \d+ pairs.*--config-dir {folder}/conf data=judged.*judgments={file}",
        said,
        re.DOTALL,
    ), said
    with open(file, newline="") as opened:
        assert {(r["task"], r["query_id"], r["product_id"]): int(r["grade"]) for r in csv.DictReader(opened)} == graded
    out = evaluate("evaluate.tasks=[table]", "models=[tiny]", f"judgments={file}")
    assert "Table: 4 judgments added and 0 replaced" in (out / "results.md").read_text()
    assert means(out, "table")["judged@10"] > means(plain, "table")["judged@10"]


def test_a_complete_catalog_leaves_nothing_to_judge(shop, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["judge", "--config-dir", str(shop / "conf"), "data=shop", "data.complete=true", "models=[tiny]",
              f"port={free_port()}", f"out={tmp_path}", f"cache_dir={tmp_path / 'cache'}"])  # fmt: skip
    assert "There is nothing to judge: the judgments of shop are complete" in capsys.readouterr().err


def test_searches_that_training_saw_are_judged_only_where_there_are_no_others(finished):
    config = config_of(Overrides([f"run={finished.path}"]))
    tasks = {pair.task for pair in pool_of(config, JudgeOptions(depth=3), None)[0]}
    assert tasks and "in_domain" not in tasks
    config.evaluate.tasks = ["in_domain"]
    assert {pair.task for pair in pool_of(config, JudgeOptions(depth=3), None)[0]} == {"in_domain"}


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["run=nowhere"], "this is not a run folder"),
        (["data=judged", "depth=0"], "depth"),
        (["data=judged", "models=[no-such]"], "no-such"),
        (["data=judged", "evaluate.sets=[judged]"], "one catalog"),
    ],
)
def test_wrong_words_are_told_before_anything_is_loaded(judged, words, sentence, tmp_path, capfd):
    with pytest.raises(SystemExit):
        main(["judge", "--config-dir", str(judged[0] / "conf"), f"out={tmp_path}", *words])
    assert sentence in capfd.readouterr().err and not list(tmp_path.iterdir())
