"""`gcl index` over tars in img2dataset's layout: what is sound is indexed, what is not is listed."""

import csv
import io
import tarfile

import pyarrow.parquet as parquet
import pytest
from PIL import Image

from gcl.cli import main
from gcl.data.store.store import RecordStore
from gcl.schema import Field, Modality


def picture(seed: int) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (20, 16), (seed * 7 % 256, 40, 90)).save(target, "JPEG")
    return target.getvalue()


@pytest.fixture
def shards(tmp_path):
    for number in range(2):
        with tarfile.open(tmp_path / f"{number:05d}.tar", "w") as tar:
            for row in range(10):
                members = {"jpg": picture(10 * number + row), "txt": f"caption {row % 4}".encode(), "json": b'{"w": 2}'}
                for kind, data in members.items():
                    member = tarfile.TarInfo(f"{number:05d}{row:04d}.{kind}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return tmp_path


def test_shards_are_indexed_where_they_lie(shards, tmp_path, capsys):
    out = tmp_path / "index"
    main(["index", f"shards={shards}/{{00000..00001}}.tar", f"out={out}", "score=w"])
    assert "2 shards, 20 samples: 20 pairs indexed" in capsys.readouterr().out
    documents = RecordStore(out, "documents", {"image": Field(Modality.image)})
    queries = RecordStore(out, "queries", {"text": Field()})
    assert len(documents) == 20 and len(queries) == 4 and documents[13]["image"] == picture(13)
    pairs = parquet.read_table(out / "pairs.parquet")
    assert queries[pairs["query"][6].as_py()]["text"] == "caption 2" and set(pairs["score"].to_pylist()) == {2.0}


def test_what_is_refused_is_listed_and_ends_with_status_one(shards, tmp_path, capsys):
    with tarfile.open(shards / "00002.tar", "w") as tar:
        for key, data in (("a.jpg", b"no picture"), ("a.txt", b"x"), ("b.txt", b"alone"), ("c.pkl", b"y")):
            member = tarfile.TarInfo(key)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    out = tmp_path / "index"
    with pytest.raises(SystemExit) as ended:
        main(["index", f"shards={shards}/*.tar", f"out={out}"])
    assert ended.value.code == 1 and "not used: 1 members .pkl" in capsys.readouterr().out
    with open(out / "refused.csv", newline="") as file:
        reasons = {row["key"]: row["reason"] for row in csv.DictReader(file)}
    assert reasons == {"a": "unreadable image", "b": "no document"}
    with pytest.raises(SystemExit) as ended:
        main(["index", f"shards={shards}/*.tar", f"out={out}"])
    assert ended.value.code == 2 and "is not empty" in capsys.readouterr().err
    main(["index", f"shards={shards}/*.tar", f"out={tmp_path / 'again'}", "strict=false"])


def test_words_that_are_missing_or_wrong(tmp_path, capsys):
    wrong = (([], "gcl index shards="), (["shards=x.tar", "out=y"], "is not a file"), (["shard=x"], "shards"))
    for words, said in wrong:
        with pytest.raises(SystemExit):
            main(["index", *words])
        assert said in capsys.readouterr().err
