"""Shards from elsewhere, whole, odd and hostile: every sample is used whole or counted with shard, key and reason."""

import gzip
import io
import json
import pickle
import tarfile
from collections import Counter

import pytest
import webdataset
from PIL import Image

from gcl.data.prepare.from_shards import index_shards
from gcl.data.store.shard_writer import ShardWriter
from gcl.data.store.store import RecordStore
from gcl.data.store.tar import TarDamage, members
from gcl.data.tables.remote import expand_braces, locate_shards
from gcl.schema import Field, Modality, Schema

SCHEMA = Schema(
    query={"query": Field(column="txt")},
    document={"image": Field(Modality.image), "title": Field()},
)


def picture(color, kind="JPEG", size=(8, 8)):
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, kind)
    return file.getvalue()


JPG = [picture((40 * n, 90, 200 - 40 * n)) for n in range(5)]


def member(name, data=b"", **attributes):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, data


def sample(key, number=0, *, jpg=None, txt=None, about=None):
    about = {"title": f"title {number}", "score": 10 * number} if about is None else about
    return [
        member(f"{key}.jpg", JPG[number] if jpg is None else jpg),
        member(f"{key}.json", json.dumps(about).encode()),
        member(f"{key}.txt", (f"query {number}" if txt is None else txt).encode()),
    ]


def described(about):
    """Sample x with these bytes as its JSON."""
    return [member("x.jpg", JPG[1]), member("x.json", about), member("x.txt", b"query 1")]


def without_image(*, jpg):
    """Sample x with another member in its image's place."""
    return [*sample("x", 1)[1:], jpg]


def tar(*groups, format=tarfile.GNU_FORMAT):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        for info, data in (entry for group in groups for entry in group):
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


ABC = tar(sample("a", 0), sample("b", 1), sample("c", 2))
PART = len(ABC.rstrip(b"\0")) // 512 * 512 + 512  # where the data end and the end-of-archive mark begins
THIRD = PART // 3


@pytest.fixture
def index(tmp_path):
    def run(*shards, schema=SCHEMA, **options):
        paths = []
        for number, data in enumerate(shards):
            paths.append(tmp_path / f"{number}.tar")
            paths[-1].write_bytes(data)
        found = index_shards(paths, tmp_path / "index", schema, **options)
        documents = RecordStore(tmp_path / "index", "documents", schema.document)
        queries = RecordStore(tmp_path / "index", "queries", schema.query)
        documents.verify()
        pairs = [
            (queries[int(q)], documents[int(d)], float(s))
            for q, d, s in zip(found.pairs.query, found.pairs.document, found.pairs.score, strict=True)
        ]
        assert found.samples == len(pairs) + sum(bad.key is not None for bad in found.refused)
        return found, pairs

    return run


def expected(*numbers, score=None):
    return [
        ({"query": f"query {n}"}, {"image": JPG[n], "title": f"title {n}"}, 1.0 if score is None else score(n))
        for n in numbers
    ]


def complaints(found):
    return [(bad.shard.name, bad.key, bad.bad.reason) for bad in found.refused]


def replaced(data, at, new):
    return data[:at] + new + data[at + len(new) :]


def header_of(data, name):
    return data.index(name.encode() + b"\0")


def test_img2dataset_shards_are_indexed_in_place(index):
    found, pairs = index(ABC, tar(sample("a", 3), sample("z", 4)), score="score")
    assert pairs == expected(0, 1, 2, 3, 4, score=lambda n: 10.0 * n)
    assert not found.refused and not found.others


def test_our_own_and_stock_webdataset_tars_are_read(index, tmp_path):
    side = {"image": Field(Modality.image), "title": Field(), "query": Field()}
    with ShardWriter(tmp_path / "ours", "all", side=side) as writer:
        for n in range(3):
            writer.write(f"d{n}", {"image": JPG[n], "title": f"title {n}", "query": f"query {n}"})
    path = tmp_path / "stock.tar"
    with webdataset.TarWriter(str(path)) as stock:
        stock.write({"__key__": "x", "image.jpg": JPG[3], "title.txt": "title 3", "query.txt": "query 3"})
    schema = Schema(query={"query": Field()}, document=SCHEMA.document)
    _, pairs = index((tmp_path / "ours" / "all-00000.tar").read_bytes(), path.read_bytes(), schema=schema)
    assert pairs == expected(0, 1, 2, 3)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_unicode_and_dotted_names(index, format):
    keys = ["sku.123.v2", "./deep/folder.x/ключ", "d" * 60 + "/" + "k" * 80]
    data = tar(*(sample(key, n) for n, key in enumerate(keys)), format=format)
    found, pairs = index(data)
    assert pairs == expected(0, 1, 2) and not found.refused


def test_dots_in_keys_do_not_merge_samples(index):
    _, pairs = index(tar(sample("sku.1", 0), sample("sku.2", 1), sample("sku.1.jpg", 2)))
    assert pairs == expected(0, 1, 2)


def test_members_that_do_not_lie_together_are_joined(index):
    by_kind = [list(kind) for kind in zip(sample("a", 0), sample("b", 1), sample("c", 2), strict=True)]
    found, pairs = index(tar(*by_kind))
    assert pairs == expected(0, 1, 2) and not found.refused


def test_equal_keys_of_two_shards_are_two_samples(index):
    _, pairs = index(tar(sample("a", 0)), tar(sample("a", 1)))
    assert pairs == expected(0, 1)


def test_equal_content_is_stored_once(index, tmp_path):
    found, pairs = index(tar(sample("a", 0), sample("b", 0), sample("c", 0, txt="other")))
    assert pairs[0] == pairs[1]
    assert found.pairs.query.tolist() == [0, 0, 1] and found.pairs.document.tolist() == [0, 0, 0]
    assert len(RecordStore(tmp_path / "index", "documents", SCHEMA.document)) == 1


def test_folders_and_other_members_are_passed_over_and_counted(index):
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    others = [member("a.pkl", pickle.dumps(Bomb())), member("a.pyd", b"x"), member("README", b"x")]
    found, pairs = index(tar([member("a", type=tarfile.DIRTYPE)], sample("a", 0), others, sample("b", 1)))
    assert pairs == expected(0, 1) and not found.refused
    assert found.others == {"pkl": 1, "pyd": 1, "readme": 1}


def test_absent_fields_stay_absent(index):
    no_title = sample("a", 0, about={"title": None})
    no_image = [entry for entry in sample("b", 1) if not entry[0].name.endswith("jpg")]
    _, pairs = index(tar(no_title, no_image))
    assert [(d["image"], d["title"]) for _, d, _ in pairs] == [(JPG[0], None), (None, "title 1")]


def test_numbers_in_json_are_texts(index):
    _, pairs = index(tar(sample("a", 0, about={"title": 12.5})))
    assert pairs[0][1]["title"] == "12.5"


DAMAGED = {
    "cut inside a member": (ABC[: THIRD + 700], [0], [("b", "shard is cut")]),
    "cut inside a header": (ABC[: 2 * THIRD + 100], [0], [("b", "shard is cut")]),
    "cut between samples": (ABC[: 2 * THIRD], [0], [("b", "shard is cut")]),
    "cut before the end mark": (ABC[:PART], [0, 1], [("c", "shard is cut")]),
    "cut inside the end mark": (ABC[: PART + 512], [0, 1, 2], []),
    "cut inside the padding": (ABC[: PART - 100], [0, 1], [("c", "shard is cut")]),
    "damaged header": (replaced(ABC, THIRD + 150, b"9"), [], [("a", "tar header is damaged")]),
    "damaged size": (replaced(ABC, THIRD + 130, b"7"), [], [("a", "tar header is damaged")]),
    "data after the end": (ABC + ABC, [0, 1], [("c", "data after the end of the archive")]),
    "empty file": (b"", [], [(None, "shard is empty")]),
    "only zeros": (bytes(10240), [], [(None, "shard has no sample")]),
    "error page": (b"<!DOCTYPE html><html>404</html>" * 40, [], [(None, "shard is not a tar")]),
    "short error page": (b"Not found", [], [(None, "shard is not a tar")]),
    "compressed": (gzip.compress(ABC), [], [(None, "shard is compressed")]),
    "other members only": (tar([member("a.cls", b"1")]), [], [(None, "shard has no sample")]),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_shards_lose_no_more_than_what_is_damaged(index, name):
    data, numbers, bad = DAMAGED[name]
    found, pairs = index(data, tar(sample("good", 4)))
    assert pairs == expected(*numbers, 4)
    assert complaints(found) == [("0.tar", key, reason) for key, reason in bad]


def test_of_a_cut_shard_whose_members_lie_apart_only_complete_samples_are_used(index):
    a, b, c = sample("a", 0), sample("b", 1), sample("c", 2)
    data = tar([*a[:2], *b[:2], *c[:2], a[2], b[2], c[2]])
    found, pairs = index(data[: header_of(data, "b.txt") + 512 + 3], tar(sample("good", 4)))
    assert pairs == expected(0, 4)
    assert sorted(complaints(found)) == [("0.tar", "b", "shard is cut"), ("0.tar", "c", "shard is cut")]


SPARSE = {"GNU.sparse.major": "1"}


def link(kind, target):
    return member("x.jpg", type=kind, linkname=target)


BAD_SAMPLES = {
    "member twice": ([*sample("x", 1), member("x.jpg", JPG[3])], "member occurs twice"),
    "field twice": ([*sample("x", 1), member("x.png", picture("red", "PNG"))], "field occurs twice"),
    "no document": ([member("x.txt", b"query")], "no document"),
    "no query": (sample("x", 1)[:2], "no query"),
    "empty query": (sample("x", 1, txt=""), "no query"),
    "empty image": (sample("x", 1, jpg=b""), "unreadable image"),
    "error page as image": (sample("x", 1, jpg=b"<html>429 Too Many Requests</html>"), "unreadable image"),
    "cut image": (sample("x", 1, jpg=picture("red", size=(90, 90))[:-200]), "unreadable image"),
    "huge image": (sample("x", 1, jpg=picture("red", "PNG", size=(2000, 1001))), "image has too many pixels"),
    "text that is no UTF-8": ([*sample("x", 1)[:2], member("x.txt", b"caf\xe9")], "text is not UTF-8"),
    "JSON that is none": (described(b"{'title': 1}"), "JSON cannot be read"),
    "JSON without end": (described(b"[" * 200_000), "JSON cannot be read"),
    "JSON of another kind": (sample("x", 1, about=["title"]), "JSON cannot be read"),
    "JSON value that is no text": (described(b'{"title": {"en": "shoe"}, "score": 1}'), "JSON value is not a text"),
    "half a surrogate pair": (described(b'{"title": "\\ud800", "score": 1}'), "text is not UTF-8"),
    "no score": (sample("x", 1, about={"title": "t"}), "no score"),
    "score that is a word": (sample("x", 1, about={"title": "t", "score": "high"}), "score is not a number"),
    "score that is no number": (sample("x", 1, about={"title": "t", "score": float("nan")}), "score is not finite"),
    "score without end": (sample("x", 1, about={"title": "t", "score": 10**400}), "score is not finite"),
    "score that is true": (sample("x", 1, about={"title": "t", "score": True}), "score is not a number"),
    "symbolic link": (without_image(jpg=link(tarfile.SYMTYPE, "/etc/passwd")), "member is a link"),
    "hard link": (without_image(jpg=link(tarfile.LNKTYPE, "ok.jpg")), "member is a link"),
    "device": (without_image(jpg=member("x.jpg", type=tarfile.CHRTYPE)), "member is a device"),
    "pipe": (without_image(jpg=member("x.jpg", type=tarfile.FIFOTYPE)), "member is a pipe"),
    "unknown kind": (without_image(jpg=member("x.jpg", JPG[1], type=b"Z")), "member is of an unknown kind"),
    "sparse": (without_image(jpg=member("x.jpg", JPG[1], pax_headers=SPARSE)), "member is sparse"),
}


@pytest.mark.parametrize("name", BAD_SAMPLES)
def test_bad_samples_are_counted_and_their_neighbours_used(index, name):
    entries, reason = BAD_SAMPLES[name]
    format = tarfile.PAX_FORMAT if name == "sparse" else tarfile.GNU_FORMAT
    data = tar(sample("ok", 1), entries, sample("last", 2), format=format)
    found, pairs = index(data, score="score", max_pixels=2_000_000)
    assert pairs == expected(1, 2, score=lambda n: 10.0 * n)
    assert complaints(found) == [("0.tar", "x", reason)]
    assert found.samples == 3 and found.reasons == Counter({reason: 1}) and found.refused[0].number == 2


def test_a_text_of_200_mb_is_counted_and_not_read_into_a_batch(index, tmp_path):
    """In the middle of a shard; the file is sparse, so it takes no disk."""
    size, path = 200 << 20, tmp_path / "big.tar"
    before, after = tar(sample("ok", 1))[: -2 * 512], tar(sample("last", 2))
    head = tar(*[[*sample("x", 3)[:2]]])
    head = head[: header_end(head)]
    info = tarfile.TarInfo("x.txt")
    info.size = size
    with path.open("wb") as file:
        file.write(before[: header_end(before)] + head + info.tobuf(tarfile.GNU_FORMAT))
        file.seek(size, 1)
        file.write(after)
    found = index_shards([path], tmp_path / "out", SCHEMA, score="score")
    assert complaints(found) == [("big.tar", "x", "text is too long")] and found.samples == 3 and len(found.pairs) == 2
    assert found.refused[0].bad.detail == "query: 209,715,200 characters, at most 1,000,000 are kept"
    long = {"title": "a" * 1_000_001, "score": 1}
    found, _ = index(tar(sample("ok", 1), sample("x", 2, about=long), sample("y", 3)), score="score")
    assert complaints(found) == [("0.tar", "x", "text is too long")]


def header_end(data):
    """Where the members of a tar end and its mark of zeros begins."""
    return max(member.start + -(-member.size // 512) * 512 for member in members(data))


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x"])
def test_names_that_lead_elsewhere_are_refused(index, name):
    found, pairs = index(tar(sample("ok", 0), sample(name, 1)))
    assert pairs == expected(0) and complaints(found) == [("0.tar", name, "member name is unsafe")]


def test_old_gnu_sparse_members_are_refused_and_stepped_over(index):
    entries = [*sample("x", 1)[1:], member("x.jpg", JPG[1], type=tarfile.GNUTYPE_SPARSE)]
    found, pairs = index(tar(sample("ok", 0), entries, sample("last", 2)))
    assert pairs == expected(0, 2) and complaints(found) == [("0.tar", "x", "member is sparse")]


def test_names_that_are_no_text_are_refused(index):
    data = tar(sample("ok", 0), sample("x\udce9", 1))
    found, pairs = index(data)
    assert pairs == expected(0) and complaints(found) == [("0.tar", "x\\xe9", "member name is not UTF-8")]


def test_links_that_claim_data_end_the_reading(index):
    """Readers differ in whether such data is skipped, so what follows could be two different archives."""
    data = tar(sample("a", 0), sample("b", 1), [member("c.jpg", type=tarfile.LNKTYPE)], sample("d", 2))
    at = header_of(data, "c.jpg")
    header = bytearray(replaced(data[at : at + 512], 124, b"00000001000"))
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    found, pairs = index(replaced(data, at, bytes(header)))
    assert pairs == expected(0) and complaints(found) == [("0.tar", "b", "tar header is damaged")]


def test_global_headers_that_rename_members_end_the_reading(index, tmp_path):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"path": "a.jpg"}) as archive:
        for info, data in sample("a", 0):
            archive.addfile(info, io.BytesIO(data))
    found, pairs = index(file.getvalue(), tar(sample("good", 4)))
    assert pairs == expected(4) and complaints(found) == [("0.tar", None, "tar header is damaged")]


def test_a_document_id_stands_for_one_document(index):
    def of(key, number, identifier):
        return sample(key, number, about={"title": f"title {number}", "sku": identifier})

    found, pairs = index(
        tar(of("a", 0, "s1"), of("b", 0, "s1"), of("c", 1, "s1"), of("d", 1, 77), of("e", 2, None)), document_id="sku"
    )
    assert pairs == expected(0, 0, 1) and found.pairs.document.tolist() == [0, 0, 1]
    assert sorted(complaints(found)) == [
        ("0.tar", "c", "document id repeated with other content"),
        ("0.tar", "e", "no document id"),
    ]


def test_no_usable_sample_is_an_error_that_says_what_was_found(index, tmp_path):
    with pytest.raises(ValueError, match=r"No sample of the 1 shards .*no document: 3; members of no field: 3 .jpg"):
        index(ABC, schema=Schema(query={"q": Field(column="txt")}, document={"text": Field(column="name")}))
    assert not list((tmp_path / "index").iterdir())


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"score": "50,5"}, r"score is '50,5': 50,5: with data.decimal=',' it is one\.$"),
        ({"score": -1}, r"negative score: score is -1\.$"),
        ({"scores": 5}, r"no score: no key 'score' in the JSON, which has title, scores\.$"),
        ({"score": True}, r"holds words where a score is expected \('true' 3\).*data.grades={true: …}"),
    ],
)
def test_what_is_wrong_with_every_sample_is_said_and_nothing_else(index, about, said):
    with pytest.raises(ValueError, match=said):
        index(
            tar(*(sample(key, number, about={"title": key, **about}) for number, key in enumerate("abc"))),
            score="score",
        )


def test_every_cut_of_a_shard_gives_a_prefix_and_says_so(tmp_path):
    """At any byte: the members before the cut, all of them right, then TarDamage (none once the mark has begun)."""
    whole = list(members(ABC))
    for length in [*range(0, PART + 1100, 61), PART, PART + 511, PART + 512, PART + 513]:
        found, damage = [], None
        try:
            for entry in members(ABC[:length]):
                found.append(entry)
        except TarDamage as error:
            damage = error
        if found and found[-1].refused:
            assert found.pop().refused == "member is cut" and damage.reason == "shard is cut"
        assert found == whole[: len(found)]
        assert (damage is None) == (length >= PART + 512 and length % 512 == 0) or length > PART + 512


def test_every_changed_header_byte_is_noticed():
    for offset in range(0, 512, 3):
        data = bytearray(ABC)
        data[THIRD + offset] ^= 0x55
        with pytest.raises(TarDamage, match="tar header is damaged"):
            list(members(bytes(data)))


def test_shards_are_found_by_braces_and_wildcards(tmp_path):
    for name in ("a-08.tar", "a-09.tar", "a-10.tar", "b.tar"):
        (tmp_path / name).write_bytes(ABC)
    options = {"root": tmp_path, "copies": tmp_path / "copies"}
    names = [path.name for path in locate_shards("a-{08..10}.tar", **options)]
    assert names == ["a-08.tar", "a-09.tar", "a-10.tar"] == [p.name for p in locate_shards("a-*.tar", **options)]
    both = locate_shards(f"file://{tmp_path}/{{b,a-10}}.tar", **options)
    assert [path.name for path in both] == ["b.tar", "a-10.tar"]
    assert list(expand_braces("x{9..11}y")) == ["x9y", "x10y", "x11y"]


@pytest.mark.parametrize(
    ("shards", "words"),
    [
        ("pipe:cat /etc/passwd", "'pipe:cat /etc/passwd' is not read"),
        ("PIPE:true", "is not read"),
        ("simplecache::s3://bucket/a.tar", "is not read"),
        ("s3://bucket/a.tar::file://x", "chains file systems"),
        ("ssh://host/a.tar", "ssh://host/a.tar' is not read"),
        ("missing-{0..2}.tar", "missing-0.tar is not a file"),
        ("nothing-*.tar", "nothing matches"),
        ("{9..2}.tar", "is not a range"),
        ("{0..999}{0..999}{0..999}.tar", "means 1,000,000,000 names"),
        ("{b,b}.tar", "lists .*b.tar twice"),
    ],
)
def test_shards_that_are_not_read(tmp_path, shards, words):
    (tmp_path / "b.tar").write_bytes(ABC)
    with pytest.raises(ValueError, match=words):
        locate_shards(shards, root=tmp_path, copies=tmp_path / "copies")
    assert not (tmp_path / "copies").exists()


def test_remote_shards_are_copied_once_and_whole(tmp_path, monkeypatch):
    import fsspec

    from gcl.data.tables import remote as locate

    monkeypatch.setattr(locate, "REMOTE", ("memory",))
    files = fsspec.filesystem("memory")
    files.pipe("/bucket/a.tar", ABC)
    options = {"root": tmp_path, "copies": tmp_path / "copies"}
    (path,) = locate_shards("memory://bucket/a.tar", **options)
    assert path.read_bytes() == ABC
    files.pipe("/bucket/a.tar", b"changed")
    assert locate_shards("memory://bucket/a.tar", **options) == [path] and path.read_bytes() == ABC
    assert [file.name for file in (tmp_path / "copies").iterdir()] == [path.name]
