"""A catalog prepared in pieces is the catalog prepared at once, byte for byte, and no picture is decoded twice."""

import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from gcl.data.catalog import Split, Store
from gcl.data.prepare import distinct as collect
from gcl.data.prepare.parts import Part, parse_part
from gcl.data.prepare.prepare import Pieces, prepare, prepare_part
from gcl.distributed.engines import ENGINES, On
from helpers.small_catalog import bad_images, catalog, drawn, image, pairs, prepared, products, text, write_table

SPLIT = Split(queries=0.7, documents=0.6, dev=0.4, seed=1)


@pytest.fixture
def shop(tmp_path):
    """60 products, of which two share a picture, one has none, one a broken one; queries that are pictures as well."""
    rows = products(60)
    for number, row in enumerate(rows):
        (tmp_path / f"{number}.jpg").write_bytes(drawn(number, size=(90, 70)))
        row["photo"] = f"{number}.jpg" if number != 5 else None
    rows[7]["photo"] = "8.jpg"
    (tmp_path / "9.jpg").write_bytes(b"broken")
    write_table(tmp_path / "products.csv", rows)
    log = [
        row | {"shot": f"{(number * 11) % 60}.jpg" if number % 4 == 0 else None}
        for number, row in enumerate(pairs(60, 60, each=4))
    ]
    write_table(tmp_path / "pairs.csv", [row for row in log if row["shot"] != "9.jpg"])
    return catalog(
        tmp_path,
        products="products.csv",
        pairs="pairs.csv",
        score="score",
        query={"query": text(), "shot": image()},
        document={"photo": image(), "title": text()},
        split=SPLIT,
        store=Store(image_side=48, shard_bytes=60_000),
        max_bad=0.1,
    )


def files(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".verified")  # file times
    return {path.relative_to(folder): path.read_bytes() for path in paths}


@pytest.mark.parametrize("count", [1, 3])
def test_pieces_are_the_whole(shop, tmp_path, monkeypatch, count):
    whole = prepare(shop, tmp_path / "whole", progress=False)
    for number in reversed(range(1, count + 1)):
        prepare_part(shop, tmp_path / "pieces", Part(number, count), progress=False)

    def looked_again(*_, **__):
        raise AssertionError("a picture was looked at again")

    monkeypatch.setattr(collect, "check_image", looked_again)
    found = prepare(shop, tmp_path / "pieces", progress=False)
    assert files(found) == files(whole)
    lost = [(row["id"], row["field"], row["reason"]) for row in bad_images(found)]
    assert lost == [("0009", "document.photo", "unreadable image")]
    assert not list((tmp_path / "pieces").glob("*-parts-*")), "what is merged is gone"


def test_pieces_share_the_work(shop, tmp_path):
    folders = [prepare_part(shop, tmp_path / "out", Part(number, 3), progress=False) for number in (1, 2, 3)]
    counts = [sum(path.stat().st_size for path in folder.glob("*.tar")) for folder in folders]
    assert min(counts) > 0.1 * sum(counts)
    written = {path: path.stat().st_mtime_ns for path in folders[0].rglob("*")}
    assert prepare_part(shop, tmp_path / "out", Part(1, 3), progress=False) == folders[0]
    assert {path: path.stat().st_mtime_ns for path in folders[0].rglob("*")} == written


def test_a_missing_or_interrupted_piece_costs_time_only(shop, tmp_path, monkeypatch):
    whole = prepare(shop, tmp_path / "whole", progress=False)
    prepare_part(shop, tmp_path / "pieces", Part(1, 3), progress=False)
    real, calls = collect.check_image, []

    def dies(*given, **options):
        calls.append(1)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return real(*given, **options)

    monkeypatch.setattr(collect, "check_image", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare_part(shop, tmp_path / "pieces", Part(2, 3), progress=False)
    monkeypatch.undo()
    assert files(prepare(shop, tmp_path / "pieces", progress=False)) == files(whole)


def test_a_killed_piece_is_done_again(shop, tmp_path):
    code = (
        "import sys; sys.path.insert(0, 'tests/data')\n"
        "from gcl.data.prepare import distinct as collect\nimport time, pickle\nfrom pathlib import Path\n"
        "real = collect.check_image\n"
        f"written = lambda: list(Path({str(tmp_path / 'out')!r}).glob('*-parts-*/1-of-2/*.tar'))\n"
        "collect.check_image = lambda *a, **o: time.sleep(900 * bool(written())) or real(*a, **o)\n"
        "from gcl.data.prepare.prepare import prepare_part\nfrom gcl.data.prepare.parts import Part\n"
        f"given = pickle.loads(Path({str(tmp_path / 'given')!r}).read_bytes())\n"
        f"prepare_part(given, {str(tmp_path / 'out')!r}, Part(1, 2), progress=False)\n"
    )
    import pickle

    (tmp_path / "given").write_bytes(pickle.dumps(shop))
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 900
    while not list((tmp_path / "out").glob("*-parts-*/1-of-2/*.tar")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = prepare_part(shop, tmp_path / "out", Part(1, 2), progress=False)
    other = prepare_part(shop, tmp_path / "other", Part(1, 2), progress=False)
    assert files(done) == files(other)


def test_parts_are_named_properly(shop, tmp_path):
    for words in ("0/3", "4/3", "3", "a/b", "-1/3", "1/0", "²/3"):
        with pytest.raises(ValueError, match="part="):
            parse_part(words)
    for byte in range(256):
        assert sum(Part(n, 4).holds(bytes([byte] * 16)) for n in range(1, 5)) == 1
    pieces, away = Pieces(On(ENGINES["local"]), 2), "s3://shop/prepared"
    with pytest.raises(
        ValueError, match="engine= needs a cache_dir that all machines reach as a folder, and s3://shop"
    ):
        prepare(shop, away, pieces=pieces, progress=False)
    with pytest.raises(ValueError, match="part= needs a cache_dir that all machines reach as a folder, and s3://shop"):
        prepare_part(shop, away, Part(1, 2))
    with pytest.raises(ValueError, match="ready shards"):
        prepare_part(catalog(tmp_path, shards="x.tar"), tmp_path / "out", Part(1, 2))


def test_pieces_that_do_not_fit_are_named(shop, tmp_path, caplog):
    caplog.set_level("INFO")
    first = prepare_part(shop, tmp_path / "out", Part(1, 3), progress=False)
    assert not caplog.messages
    prepare_part(shop, tmp_path / "out", Part(1, 2), progress=False)
    assert caplog.messages == [f"{first.parent} has pieces of another number, too (1-of-3): they count as well."]
    caplog.clear()
    other = replace(shop, store=Store())
    prepare(other, tmp_path / "out", progress=False, report=lambda _: None)
    assert caplog.messages[0].startswith(f"{first.parent.name} in {tmp_path / 'out'}: pieces (part=) of other settings")
    assert first.exists() and prepare_part(other, tmp_path / "out", Part(1, 2), progress=False) is None


def test_a_catalog_without_pictures_has_nothing_to_divide(tmp_path):
    write_table(tmp_path / "products.csv", products(20))
    write_table(tmp_path / "pairs.csv", pairs(20, 20))
    given = catalog(tmp_path, products="products.csv", pairs="pairs.csv")
    prepare_part(given, tmp_path / "out", Part(1, 2), progress=False)
    assert len(prepared(given, tmp_path / "out").documents) == 20
