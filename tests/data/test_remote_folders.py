"""Folders in an object store (a real S3 server) and data sets of the hub (huggingface_hub asks a server on the loopback
that answers as the hub does) are read as the same folder on this machine is, and fetched once."""

import json
import os
import subprocess
import sys
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlparse

import pyarrow.parquet as parquet
import pytest

from gcl.data.store.away import copy_here
from gcl.data.tables import remote_folder
from gcl.data.tables.remote import copied
from gcl.data.tables.table import open_table
from helpers.bucket import s3_bucket
from helpers.table_folders import ROWS, lance_set, parquet_folder, partitions, saved, table

COLUMNS = ("product_id", "title", "brand", "photo")


@pytest.fixture(scope="module")
def bucket():
    with s3_bucket() as files:
        yield files


def rows_of(folder, copies):
    opened = open_table(str(folder), root=Path(), setting="data.products", copies=copies)
    blocks = opened.blocks(COLUMNS[:3], COLUMNS[3:])
    return [row for block in blocks for row in zip(*(block.columns[name] for name in COLUMNS), strict=True)]


def put(bucket, folder, name):
    bucket.put(f"{folder}/", f"shop/{name}", recursive=True)
    return f"s3://shop/{name}"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("form", [parquet_folder, partitions, saved, lance_set])
def test_a_folder_of_a_bucket_is_the_folder(form, bucket, tmp_path):
    folder = form(tmp_path / "near" / "dt=2024-01-01")
    url = put(bucket, folder, f"{form.__name__}/dt=2024-01-01")
    copies = tmp_path / "copies"
    expected = rows_of(folder, None)
    assert len(expected) == len(ROWS) and rows_of(f"{url}/", copies) == rows_of(url, copies) == expected
    near, far = (
        open_table(str(place), root=Path(), setting="data.products", copies=copies).columns for place in (folder, url)
    )
    assert near == far and ("dt" in far) is (form in (partitions, saved))


def test_names_that_lead_elsewhere_write_nothing_there(bucket, tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    url = put(bucket, lance_set(tmp_path / "near"), "odd.lance")
    for folder in ("odd.lance", "odd"):
        bucket.pipe_file(f"shop/{folder}/{mine}", b"yours")
    bucket.pipe_file("shop/odd/index.json", b"{}")
    assert len(rows_of(url, tmp_path / "copies")) == len(ROWS)
    assert copy_here("s3://shop/odd", tmp_path / "prepared" / "odd")
    assert mine.read_text() == "mine"


def test_what_is_new_is_fetched_and_nothing_else(bucket, tmp_path, monkeypatch):
    fetched = []

    def counted(url, *arguments, **options):
        fetched.append(url)
        return copied(url, *arguments, **options)

    folder, copies = partitions(tmp_path / "far"), tmp_path / "copies"
    url = put(bucket, folder, "growing")
    rows_of(url, copies)
    before = {path.name for path in copies.iterdir()}
    monkeypatch.setattr(remote_folder, "copied", counted)
    assert len(rows_of(url, copies)) == 24 and not fetched
    with bucket.open("shop/growing/brand=b3/dt=2024-01-01/part-0.parquet", "wb") as file:
        parquet.write_table(table(ROWS[:2]).drop_columns(["brand"]), file)
    assert [row[2] for row in rows_of(url, copies)][24:] == ["b3", "b3"]
    new = {path.name for path in copies.iterdir()} - before
    assert len(new) == 2, "a file, and the folder that links it"


def test_folders_that_are_no_one_table_are_refused_by_their_url(bucket, tmp_path):
    folder = parquet_folder(tmp_path / "splits")
    parquet.write_table(table(), folder / "data" / "test-00000-of-00001.parquet")
    url = put(bucket, folder, "splits")
    with pytest.raises(
        ValueError, match=f"^data.products: {url}/data holds test, train: name one of them, {url}/data/te"
    ):
        rows_of(url, tmp_path / "copies")
    bucket.pipe("shop/delta/_delta_log/0.json", b"{}")
    bucket.pipe("shop/delta/part.parquet", b"PAR1")
    with pytest.raises(ValueError, match=r"^data.products: s3://shop/delta is a Delta table"):
        rows_of("s3://shop/delta", tmp_path / "copies")
    bucket.pipe("shop/ice/metadata/v1.metadata.json", b"{}")
    with pytest.raises(ValueError, match=r"^data.products: s3://shop/ice is an Iceberg table"):
        rows_of("s3://shop/ice/", tmp_path / "copies")
    with pytest.raises(FileNotFoundError, match=r"^data.products: there is nothing at s3://shop/nowhere/"):
        rows_of("s3://shop/nowhere/", tmp_path / "copies")
    bucket.pipe("shop/ice/data/dt=1/a.parquet", b"PAR1")
    bucket.pipe("shop/delta/dt=1/part.parquet", b"PAR1")
    for name in ("delta/part.parquet", "delta/p*.parquet", "delta/dt=1/", "delta/*/part.parquet", "ice/data/",
                 "ice/data/dt=1/a.parquet", "ice/data/*/a.parquet"):  # fmt: skip
        owner = name.partition("/")[0]
        sentence = rf"^data.products: the files in s3://shop/{owner}\S* belong to the table s3://shop/{owner}, and some"
        with pytest.raises(ValueError, match=sentence):
            rows_of(f"S3://shop/{name}", tmp_path / "copies")
    assert not [path for path in (tmp_path / "copies").iterdir() if path.suffix == ".partial"]


class _Hub(BaseHTTPRequestHandler):
    """What the Hugging Face hub answers of data sets called shop/…: each has the files of a folder in `place`."""

    def __init__(self, place: Path, *arguments) -> None:
        self.place = place
        super().__init__(*arguments)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, data: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _json(self, value: object) -> None:
        self._answer(json.dumps(value).encode(), Content_Type="application/json")

    def _asked(self) -> tuple[Path, list[str]]:
        """The data set's folder, and what is asked of it."""
        parts = unquote(urlparse(self.path).path).strip("/").removeprefix("api/").split("/")
        return self.place / parts[2], parts[3:]

    @staticmethod
    def _entries(folder: Path) -> list[dict]:
        kinds = {True: "directory", False: "file"}
        return [
            {"path": path.relative_to(folder).as_posix(), "oid": "0" * 40, "type": kinds[path.is_dir()],
             "size": 0 if path.is_dir() else path.stat().st_size}
            for path in sorted(folder.rglob("*"))
        ]  # fmt: skip

    def do_POST(self) -> None:
        paths = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["paths"]
        self._json([entry for entry in self._entries(self._asked()[0]) if entry["path"] in paths])

    def do_GET(self) -> None:
        folder, asked = self._asked()
        if not folder.is_dir():
            self._answer(b"{}", 404, X_Error_Code="RepoNotFound")
        elif asked in ([], ["revision", "main"]):
            self._json({"id": f"shop/{folder.name}", "sha": "1" * 40, "siblings": [], "private": False, "tags": [],
                        "downloads": 0, "likes": 0})  # fmt: skip
        elif asked[0] == "tree":
            below = "/".join(asked[2:])
            self._json([entry for entry in self._entries(folder) if entry["path"].startswith(below)])
        else:  # ["resolve", "main", …]
            data = folder.joinpath(*asked[2:]).read_bytes()
            about = {"ETag": '"e"', "X_Repo_Commit": "1" * 40, "Accept_Ranges": "bytes"}
            if span := self.headers.get("Range"):
                start, _, stop = span.removeprefix("bytes=").partition("-")
                part = data[int(start) : int(stop) + 1 if stop else None]
                said = f"bytes {start}-{int(start) + len(part) - 1}/{len(data)}"
                self._answer(part, 206, Content_Range=said, **about)
            else:
                self._answer(data, **about)

    do_HEAD = do_GET


_READ = """
import sys
from pathlib import Path
from gcl.data.tables.table import open_table
copies, *names = sys.argv[1:]
for name in names:
    try:
        opened = open_table(f"hf://datasets/shop/{name}", root=Path(), setting="data.products", copies=Path(copies))
    except (OSError, ValueError) as error:
        print(error)
        continue
    for block in opened.blocks(["product_id", "title"], ["photo"]):
        for row in zip(block.columns["product_id"], block.columns["title"], block.columns["photo"]):
            print(*row[:2], len(row[2]), sep=";")
"""


@pytest.mark.slow
def test_a_data_set_of_the_hub_by_its_name(tmp_path):
    place = tmp_path / "hub"
    parquet_folder(place / "products")
    for split in ("train", "test"):
        (place / "splits").mkdir(exist_ok=True)
        parquet.write_table(table(), place / "splits" / f"{split}-00000-of-00001.parquet")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Hub, place))
    Thread(target=server.serve_forever, daemon=True).start()
    where = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "home"),
    }
    names = ["products", "products@main/data", "splits", "nothing"]
    command = [sys.executable, "-c", _READ, str(tmp_path / "copies"), *names]
    done = subprocess.run(command, env={**os.environ, **where}, capture_output=True, text=True, check=False)
    server.shutdown()
    server.server_close()
    expected = [f"{row['product_id']};{row['title']};{len(row['photo'])}" for row in ROWS]
    lines = done.stdout.splitlines()
    assert lines[:48] == expected * 2, done.stderr
    assert lines[48].startswith("data.products: hf://datasets/shop/splits holds test, train: name one of them, hf:")
    assert lines[49:] == [
        "data.products: there is nothing at hf://datasets/shop/nothing, or it needs a login (HF_TOKEN), or "
        "HF_HUB_OFFLINE is set."
    ]
