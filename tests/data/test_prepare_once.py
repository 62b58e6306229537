"""Prepared once for the same inputs, again for others; all of it or nothing, whoever interrupts, however many ask."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from gcl.data.catalog import Split, Store
from gcl.data.prepare import distinct as collect
from gcl.data.prepare import from_tables as build
from gcl.data.prepare import parts
from gcl.data.prepare.prepare import prepare
from gcl.data.store.prepared import open_prepared
from gcl.files.atomic import write_bytes
from helpers.small_catalog import catalog, contents, drawn, image, pairs, prepared, products, text, write_table

SPLIT = Split(queries=0.7, documents=0.6)


@pytest.fixture
def shop(tmp_path):
    rows = products(30)
    for number, row in enumerate(rows):
        row["image"] = f"images/{number}.png"
    (tmp_path / "shop" / "images").mkdir(parents=True)
    for number in range(30):
        (tmp_path / "shop" / "images" / f"{number}.png").write_bytes(drawn(number, form="PNG"))
    write_table(tmp_path / "shop" / "products.csv", rows)
    write_table(tmp_path / "shop" / "pairs.csv", pairs(60, 30))
    return tmp_path / "shop"


def shop_catalog(root, **options):
    fields = {"image": image(), "title": text()}
    given = {"products": "products.csv", "pairs": "pairs.csv", "document": fields, "score": "score", "split": SPLIT}
    return catalog(root, **given | options)


def state(folder: Path):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob("*"))}


def prepare_quietly(given, out):
    return prepare(given, out, progress=False)


def test_the_second_call_does_nothing(shop, tmp_path):
    lines = []
    out = tmp_path / "out"
    folder = prepare(shop_catalog(shop), out, progress=False, report=lines.append)
    assert lines[0] == f"Prepared in {folder}" and any(line.startswith("New searches, new products") for line in lines)
    before = state(out)
    assert prepare(shop_catalog(shop), out, progress=False, report=lines.append) == folder
    assert state(out) == before
    assert [path.name for path in out.iterdir()] == [folder.name]


def test_what_changes_nothing_prepares_nothing(shop, tmp_path):
    out = tmp_path / "out"
    folder = prepare_quietly(shop_catalog(shop), out)
    given = shop_catalog(shop, store=Store(workers=1))
    given.document["title"].weight, given.document["title"].prompt = 0.3, "a photo of {}"
    assert prepare_quietly(given, out) == folder
    moved = shutil.copytree(shop, tmp_path / "moved")  # copies times of change as well
    assert prepare_quietly(shop_catalog(moved), out) == folder


@pytest.mark.parametrize(
    "change",
    [
        lambda shop, given: write_table(shop / "pairs.csv", pairs(61, 30)),
        lambda shop, given: write_table(
            shop / "products.csv", [row | {"image": "images/1.png"} for row in products(30)]
        ),
        lambda shop, given: os.utime(write_bytes(shop / "images/3.png", drawn(77, form="PNG")), (7, 7)),
        lambda shop, given: setattr(given.split, "seed", 1),
        lambda shop, given: setattr(given, "max_bad", 0.5),
        lambda shop, given: setattr(given.store, "image_side", 100),
        lambda shop, given: given.document.pop("image"),
        lambda shop, given: given.document.update(name=text(column="title")),
    ],
)
def test_what_changes_something_is_prepared_again(shop, tmp_path, change):
    folder = prepare_quietly(shop_catalog(shop), tmp_path / "out")
    given = shop_catalog(shop, split=Split(0.7, 0.6))
    change(shop, given)
    assert prepare_quietly(given, tmp_path / "out") != folder
    assert folder.is_dir()


def test_added_rows_move_no_other(shop, tmp_path):
    before = contents(prepared(shop_catalog(shop), tmp_path / "out"))
    for number in range(30, 45):
        (shop / "images" / f"{number}.png").write_bytes(drawn(number, form="PNG"))
    rows = [row | {"image": f"images/{int(row['product_id'])}.png"} for row in products(45)]
    write_table(shop / "products.csv", rows[::-1])
    write_table(shop / "pairs.csv", [*pairs(80, 45)[360:], *pairs(60, 30)])
    after = contents(prepared(shop_catalog(shop), tmp_path / "out"))
    assert set(before["pairs"]) <= set(after["pairs"])
    for key, (corpus, rows) in before["tasks"].items():
        assert set(corpus) <= set(after["tasks"][key][0])
        assert set(rows) <= set(after["tasks"][key][1])


@pytest.mark.parametrize("damage", ["index.json", "pairs.parquet", "documents-00000.tar", "tasks/zero_shot.corpus.npy"])
@pytest.mark.parametrize("how", ["missing", "cut"])
def test_half_a_folder_is_made_whole(shop, tmp_path, damage, how):
    folder = prepare_quietly(shop_catalog(shop), tmp_path / "out")
    expected = contents(open_prepared(folder))
    path = folder / damage
    data = path.read_bytes()
    path.unlink()
    if how == "cut":
        path.write_bytes(data[:-10])
    with pytest.raises((FileNotFoundError, ValueError), match="prepare"):
        open_prepared(folder)
    assert prepare_quietly(shop_catalog(shop), tmp_path / "out") == folder
    assert contents(open_prepared(folder)) == expected


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError("disk full")])
def test_an_interruption_leaves_nothing(shop, tmp_path, monkeypatch, interruption):
    def interrupt(*_, **__):
        raise interruption

    with monkeypatch.context() as patch:
        patch.setattr(build, "write_division", interrupt)
        with pytest.raises((KeyboardInterrupt, OSError)):
            prepare_quietly(shop_catalog(shop), tmp_path / "out")
    assert [path for path in (tmp_path / "out").iterdir() if path.is_dir()] == []
    folder = prepare_quietly(shop_catalog(shop), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [folder.name]


def test_shrinking_goes_on_where_it_was_interrupted(shop, tmp_path, monkeypatch):
    """Every picture is decoded once, but for the few that were under way; the result is that of one run."""
    given, decoded = shop_catalog(shop, store=Store(image_side=16)), []
    expected = contents(open_prepared(prepare_quietly(given, tmp_path / "straight")))

    def counted(data, limit, original=collect.check_image, **options):
        decoded.append(data)
        if len(decoded) == limit:
            raise KeyboardInterrupt
        return original(data, **options)

    monkeypatch.setattr(parts, "_KEEP_SECONDS", 0.0)
    monkeypatch.setattr(collect, "check_image", partial(counted, limit=20))
    with pytest.raises(KeyboardInterrupt):
        prepare_quietly(given, tmp_path / "out")
    before = len(decoded)
    folder = prepare_quietly(given, tmp_path / "out")
    assert contents(open_prepared(folder)) == expected
    assert len(decoded) - before < 30 - 15, "what was done is not done again"
    assert [path.name for path in (tmp_path / "out").iterdir()] == [folder.name]


def test_a_killed_run_is_taken_over(shop, tmp_path):
    """The process is killed before it is done; the next one removes what it left and begins anew."""
    out = tmp_path / "out"
    code = (
        f"import sys, time; sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}\n"
        "from test_prepare_once import *\n"
        "build.write_division = lambda *_, **__: time.sleep(900)\n"
        f"prepare_quietly(shop_catalog(Path({str(shop)!r})), {str(out)!r})\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 900
    while not list(out.glob(".small-*.partial/queries.parquet")) and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert list(out.glob(".small-*.partial")) and not list(out.glob("small-*"))
    folder = prepare_quietly(shop_catalog(shop), out)
    assert len(open_prepared(folder).documents) == 30
    assert [path.name for path in out.iterdir()] == [folder.name]


def test_processes_that_ask_at_once_get_one_folder(shop, tmp_path):
    alone = contents(open_prepared(prepare_quietly(shop_catalog(shop), tmp_path / "alone")))
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        folders = pool.starmap(prepare_quietly, [(shop_catalog(shop), tmp_path / "out")] * 3)
    assert len(set(folders)) == 1
    assert contents(open_prepared(folders[0])) == alone
    assert [path.name for path in (tmp_path / "out").iterdir()] == [folders[0].name]


def test_a_generator_draws_the_tables_once(tmp_path, monkeypatch):
    (tmp_path / "drawing.py").write_text(
        "import sys\n"
        "from helpers.small_catalog import pairs, products, write_table\n"
        "calls = []\n"
        "def draw(folder):\n"
        "    calls.append(folder)\n"
        "    write_table(folder / 'products.csv', products(30))\n"
        "    if len(calls) == 1:\n"
        "        raise RuntimeError('no paint')\n"
        "    write_table(folder / 'pairs.csv', pairs(60, 30))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    given = shop_catalog(None, generator="drawing:draw", document={"title": text()})
    with pytest.raises(RuntimeError, match="no paint"):
        prepare_quietly(given, tmp_path / "out")
    first = prepare_quietly(given, tmp_path / "out")
    assert prepare_quietly(given, tmp_path / "out") == first
    import drawing

    assert len(drawing.calls) == 2 and (tmp_path / "out" / "small-source" / "pairs.csv").is_file()
    for wrong, message in [("drawing", "expected 'package.module:function'"), ("drawing:drew", "cannot be imported")]:
        given = shop_catalog(None, generator=wrong, name="other")
        with pytest.raises(ValueError, match=message):
            prepare_quietly(given, tmp_path / "out")


def test_preparing_needs_no_torch():
    code = (
        "import sys, gcl.data.prepare.prepare; "
        "print([n for n in ('torch', 'webdataset', 'fsspec') if n in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(build.__file__).parents[3]
    )
    assert found.stdout.strip() == "[]"


def test_opening_a_prepared_catalog_notices_a_changed_bit(shop, tmp_path):
    """Also one that every decoder takes; nothing is read again while the files are as they were."""
    folder = prepare_quietly(shop_catalog(shop), tmp_path / "out")
    store, mark = open_prepared(folder).documents, folder / ".verified"
    before = mark.read_bytes()
    path = folder / store.shards[0]["name"]
    data = path.read_bytes()
    at = data.index(store[0]["title"].encode())
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    os.utime(path, (7, 7))  # two writes may fall into one tick of the file system's clock
    with pytest.raises(ValueError, match=rf"{path.name} has SHA-256 .*row 0, id '.*', field title"):
        open_prepared(folder)
    path.write_bytes(data)
    os.utime(path, (8, 8))
    assert mark.read_bytes() == before
    assert open_prepared(folder).documents[0] == store[0] and mark.read_bytes() != before
    mark.write_text("no JSON")
    assert open_prepared(folder).documents[0] == store[0]
