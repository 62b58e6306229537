"""`gcl search` at the terminal: its words, its table, its refusals."""

import pytest

from gcl.cli import SETTING, main
from gcl.commands.search import table
from gcl.errors import ConfigError
from gcl.retrieval.tasks.task import ListRecords
from helpers.page_shop import shop


def test_words_with_an_equals_sign_are_settings_and_others_the_query():
    words = ["run=outputs/x", "red", "shoes", "k=5", "weights.image=0.5", "=", "size 10=42"]
    assert [word for word in words if not SETTING.match(word)] == ["red", "shoes", "=", "size 10=42"]


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["shoes"], "run=… is required"),
        (["run=nowhere", "shoes"], "this is not a run folder"),
        (["run=nowhere", "kk=5", "shoes"], "no option 'kk'"),
        (["run=nowhere", "k=many", "shoes"], "k"),
        (["run=nowhere", "picture=nothing.jpg"], "picture=nothing.jpg cannot be read"),
        (["run=nowhere", " "], "The search text is empty"),
        (["run=nowhere", f"picture={__file__}"], "py cannot be used: unreadable image"),
    ],
)
def test_wrong_words_are_told_in_a_sentence(words, sentence, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["search", *words])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and sentence in said and said.count("\n") == 1
    monkeypatch.setenv("GCL_TRACEBACK", "1")
    with pytest.raises((ConfigError, FileNotFoundError)):
        main(["search", *words])


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_table_fits_and_steers_no_terminal(engine, encoders, width):
    from gcl.serve.engine import Engine

    corpus = shop()
    records = [{"title": f"\x1b[2J\x07product {n} " + "long " * 40} for n in range(5)]
    engine = Engine(encoders, ListRecords(corpus.ids[:5], records, corpus.side))
    text = table(engine, engine.search("x", k=5), width)
    assert len(text.splitlines()) == 6 and max(map(len, text.splitlines())) <= max(width, 40)
    assert all(c.isprintable() or c == "\n" for c in text)
    assert text.splitlines()[0].split() == ["base", "tuned"]


def test_further_models_stand_next_to_the_runs_own(finished, tmp_path):
    from gcl.commands.search import SearchOptions, open_engine

    cache = finished.read_config().cache_dir
    name, engine, _ = open_engine(finished, SearchOptions(cache_dir=cache, models=["tiny"]), columns=True)
    assert name == "shop" and engine.labels == ["base", "tuned", "tiny"]
    found = engine.search("red", k=3)
    assert [len(hits) for hits in found.values()] == [3, 3, 3] and set(found["tiny"][0].places) == set(engine.labels)
    (tmp_path / "some.trec").write_text("q Q0 d 1 1.0 x\n")
    with pytest.raises(ConfigError, match="^models: some brings embeddings or results that were made before"):
        open_engine(finished, SearchOptions(cache_dir=cache, models=[f"trec:{tmp_path}/some.trec"]))
