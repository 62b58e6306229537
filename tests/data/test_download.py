"""Pictures by URL from a real server that fails, stalls and lies: what arrives is whole, or listed with its reason."""

import io
import itertools
import logging
import re
import socket
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from gcl.data.catalog import Download, Store
from gcl.data.check import check_download
from gcl.data.prepare.parts import Part
from gcl.data.prepare.prepare import prepare, prepare_part
from gcl.data.tables import fetch as fetching
from gcl.data.tables.download import Downloads, summary
from gcl.data.tables.fetch import Failure, fetch
from gcl.data.tables.table import open_table
from gcl.files import progress
from helpers.small_catalog import catalog, drawn, image, pairs, prepared, products, quarantined, text, write_table

PICTURE = drawn(7, size=(40, 30))
LONG = 600.0  # seconds: what arrives does so on a busy machine as well


class Handler(BaseHTTPRequestHandler):
    """Each path is one kind of server. What was asked is counted, with its headers."""

    def do_GET(self):
        server, path = self.server, self.path.split("?")[0].strip("/")
        with server.counting:  # threads that add to one number at once would lose some
            server.asked[path] += 1
        server.headers[path] = dict(self.headers)
        server.times.append(time.monotonic())
        kind = path.split("-")[0]
        if kind in ("404", "503", "500", "429") and not (path.endswith("once") and server.asked[path] > 1):
            self.answer(b"no", int(kind), {"Retry-After": "120" if path.endswith("later") else "0"})
        elif kind == "stall":
            self.answer(PICTURE, sent=PICTURE[:100], wait=True)
        elif kind == "silent":
            server.stopped.wait()
        elif kind == "slow":  # a byte of the header at a time, without an end
            self.drip(itertools.chain(b"HTTP/1.0 200 OK\r\nX: ", itertools.repeat(b"x"[0])))
        elif kind == "short":
            self.answer(PICTURE, sent=PICTURE[:200])
        elif kind == "trickle":
            self.send_response(200)
            self.end_headers()
            self.drip(itertools.cycle(PICTURE))
        elif kind == "reset":
            self.connection.close()
        elif kind == "empty":
            self.answer(b"")
        elif kind == "html":
            self.answer(b"<html>not here</html>", headers={"Content-Type": "image/jpeg"})
        elif kind == "liar":
            self.answer(PICTURE, headers={"Content-Type": "text/html"})
        elif kind == "tail":  # the length says less than there is
            self.answer(PICTURE, headers={"Content-Length": "300"})
        elif kind == "zip":
            self.answer(PICTURE, headers={"Content-Encoding": "gzip"})
        elif kind == "endless":
            self.answer(b"\xff\xd8\xff" * 100_000)
        elif kind == "move":
            self.answer(b"", 302, {"Location": f"/{path.partition('-')[2]}"})
        elif kind == "loop":
            self.answer(b"", 302, {"Location": f"/{path}-x"})
        elif kind == "same":
            self.answer(b"", 302, {"Location": f"/{path}"})
        elif kind == "file":
            self.answer(b"", 302, {"Location": "file:///etc/hostname"})
        elif kind == "away":
            self.answer(b"", 302, {"Location": f"{server.other}/picture"})
        else:
            self.answer(PICTURE)

    def drip(self, data):
        for byte in data:
            if self.server.stopped.wait(0.02):
                return
            try:
                self.wfile.write(bytes([byte]))
            except OSError:
                return

    def answer(self, body, status=200, headers=None, sent=None, wait=False):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(body if sent is None else sent)
            self.wfile.flush()
        except OSError:  # the client has heard enough
            return
        if wait:
            self.server.stopped.wait()

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


@pytest.fixture
def server():
    found = []
    for _ in range(2):
        one = Server(("127.0.0.1", 0), Handler)
        one.asked, one.headers, one.times, one.stopped = Counter(), {}, [], threading.Event()
        one.counting = threading.Lock()
        one.url = f"http://127.0.0.1:{one.server_port}"
        threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        found.append(one)
    found[0].other, found[0].second = found[1].url, found[1]
    yield found[0]
    for one in found:
        one.stopped.set()
        one.shutdown()
        one.server_close()


def fetched(server, folder, names, **options):
    downloads = Downloads(
        Download(**{"timeout": LONG, "retries": 1, "rate": None, "workers": 16, "private": True} | options), folder
    )
    list(downloads.fetch_all(f"{server.url}/{name}" for name in names))
    return {name: downloads.read(f"{server.url}/{name}") for name in names}, downloads


def test_what_arrives_is_whole_or_has_a_reason(server, tmp_path):
    reasons = {
        "404": "HTTP 404",
        "503-always": "HTTP 503",
        "short": "200 of",
        "reset": "the server closed the connection",
        "empty": "the answer is empty",
        "zip": "sent as gzip",
        "html": "a page, not an image",
        "endless": "data.download.max_bytes",
        "loop": "redirects more than 5 times, the last time to http://127.0.0.1",
        "same": "redirects more than 5 times, the last time to http://127.0.0.1",
        "file": "it redirects to file:///etc/hostname",
    }
    good = ["picture", "503-once", "429-once", "move-picture", "liar", "picture?size=2"]
    late = dict.fromkeys(["stall", "silent", "slow", "trickle"], "timed out")
    found, downloads = fetched(server, tmp_path, [*reasons, *good, "picture"], max_bytes=100_000)
    found |= fetched(server, tmp_path, late, timeout=0.5)[0]
    assert {name: found[name] for name in good} == dict.fromkeys(good, PICTURE)
    for name, words in (reasons | late).items():
        assert not isinstance(found[name], bytes), name
        assert found[name].reason == "image cannot be downloaded" and words in found[name].detail, (name, found[name])
        assert name in found[name].detail
    assert server.asked["404"] == server.asked["endless"] == server.asked["zip"] == 1  # asking again would not help
    assert server.asked["503-always"] == server.asked["short"] == server.asked["503-once"] == 2
    assert server.asked["picture"] == 3 and downloads.fetched == len(good)
    whole = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(whole) == len(good) and all(path.read_bytes() == PICTURE for path in whole)


def test_the_timeout_is_for_all_of_an_answer_to_its_last_byte(server, monkeypatch):
    """A server that sends a byte at a time gains nothing. Every look at the clock takes 100 seconds here."""
    monkeypatch.setattr(fetching, "time", SimpleNamespace(monotonic=itertools.count(0.0, 100.0).__next__))
    for kind, words in {"slow": "timed out$", "trickle": r"timed out: not finished after 500 s, \d+ bytes"}.items():
        with pytest.raises(Failure, match=words):
            fetch(f"{server.url}/{kind}", Download(timeout=500.0, private=True))


def test_what_keeps_a_request_from_an_answer_is_said_in_words(server, tmp_path):
    """Images by urllib, tables by aiohttp: the same words."""
    pytest.importorskip("aiohttp")
    bound = socket.socket()  # which listens to nobody, and keeps the port from others
    bound.bind(("127.0.0.1", 0))
    refused = f"http://127.0.0.1:{bound.getsockname()[1]}/1.jpg"
    said = {
        f"{server.url}/429-later": "HTTP 429 Too Many Requests",
        f"{server.url.replace('http:', 'https:')}/picture": "the server does not speak https there: write http://",
        refused: "the connection is refused: nothing answers there, or a firewall is between",
    }
    downloads = Downloads(Download(timeout=LONG, retries=0, rate=None, private=True), tmp_path)
    list(downloads.fetch_all(said))
    for url, words in said.items():
        assert downloads.read(url).detail.startswith(f"{url}: {words}")
        with pytest.raises(ValueError, match=rf"^data.products: {re.escape(url)} cannot be read \({words}"):
            open_table(url, root=tmp_path, setting="data.products", copies=tmp_path)
    later = downloads.read(f"{server.url}/429-later").detail
    assert later.endswith("the server asks to wait 2 min; data.download.rate asks it less often")
    bound.close()


def test_what_is_there_is_not_asked_for_again(server, tmp_path):
    fetched(server, tmp_path, ["picture", "404"])
    again, downloads = fetched(server, tmp_path, ["picture", "404", "other"])
    assert again["picture"] == PICTURE and downloads.fetched == 1
    assert (server.asked["picture"], server.asked["404"], server.asked["other"]) == (1, 2, 1)


def test_what_may_have_passed_is_asked_for_once_more_and_counted_by_host(server, tmp_path):
    downloads = Downloads(Download(timeout=LONG, retries=0, rate=100.0, private=True), tmp_path)
    names = ["picture", "503-once", "404", "html", "picture2", "picture"]
    urls = [f"{server.url}/{name}" for name in names] + [f"{server.other}/503-always", "http://[broken/a.jpg"]
    downloads.fetch_shown(lambda: urls, "images", shown=False, twice=True)
    asked = {name: server.asked[name] for name in server.asked}
    assert asked == {"picture": 1, "503-once": 2, "404": 1, "html": 2, "picture2": 1}
    here, there = (one.removeprefix("http://") for one in (server.url, server.other))
    assert downloads.counts() == {
        here: {"HTTP 404 Not Found": 1, "a page, not an image": 1, "downloaded": 3},
        "": {"downloaded": 0, "not a URL": 1},
        there: {"HTTP 503 Service Unavailable": 1, "downloaded": 0},
    }
    shown = summary(downloads.counts())
    assert shown[2].split("  ")[0] == here and "60.0%" in shown[2] and "HTTP 404 Not Found 1" in shown[2]
    again = Downloads(Download(timeout=LONG, retries=0, rate=None, private=True), tmp_path)
    again.fetch_shown(lambda: urls, "images", shown=False)
    assert again.counts() == downloads.counts(), "what was there before is counted as what came now"


def test_an_interrupted_run_keeps_what_it_has(server, tmp_path):
    downloads = Downloads(Download(rate=50.0, workers=2, private=True), tmp_path)
    names = [f"{server.url}/picture{number}" for number in range(300)]
    for number, _ in enumerate(downloads.fetch_all(names)):
        if number == 5:
            break
    asked = server.asked.total()
    assert asked < 20
    kept = sum(path.is_file() for path in tmp_path.rglob("*"))
    assert 6 <= kept <= asked
    rest = Downloads(Download(rate=None, private=True), tmp_path)
    list(rest.fetch_all(names))
    assert rest.fetched == 300 - kept and server.asked.total() <= 300 + asked - kept


def test_headers_go_to_the_named_hosts_only(server, tmp_path, monkeypatch):
    monkeypatch.setenv("SHOP_KEY", "secret")
    headers = {"Authorization": "Bearer $SHOP_KEY", "x-shop": "7"}
    hosts = [server.url.removeprefix("http://")]
    found, _ = fetched(server, tmp_path, ["picture", "away"], headers=headers, hosts=hosts)
    assert found == {"picture": PICTURE, "away": PICTURE}
    for name in ("picture", "away"):
        sent = {key.lower(): value for key, value in server.headers[name].items()}
        assert (sent["authorization"], sent["x-shop"], sent["user-agent"]) == ("Bearer secret", "7", "gcl")
    there = {key.lower() for key in server.second.headers["picture"]}
    assert not there & {"authorization", "x-shop"} and "user-agent" in there


def test_a_host_is_asked_at_the_given_rate(server, tmp_path):
    start = time.monotonic()
    fetched(server, tmp_path, [f"picture{number}" for number in range(12)], rate=40.0)
    late = [at - start for at in sorted(server.times)]
    assert len(late) == 12 and all(seconds >= number / 40 * 0.9 for number, seconds in enumerate(late))


def test_prepare_downloads_and_quarantines(server, tmp_path):
    names = ["picture", "404", "html", "tail", "liar", "move-picture", *(f"picture{n}" for n in range(14))]
    rows = [{"product_id": f"{n:04d}", "photo": f"{server.url}/{name}"} for n, name in enumerate(names)]
    write_table(tmp_path / "products.csv", [row | {"title": f"title {row['product_id']}"} for row in rows])
    write_table(tmp_path / "pairs.csv", pairs(10, 20))
    given = catalog(
        tmp_path,
        products="products.csv",
        pairs="pairs.csv",
        document={"photo": image(), "title": text()},
        download=Download(timeout=LONG, retries=0, rate=None, private=True),
        max_bad=0.2,
        bad_images="drop",
    )
    found = prepared(given, tmp_path / "out")
    assert len(found.documents) == 17 and found.documents[0]["photo"] == PICTURE
    listed = {row["id"]: (row["reason"], row["detail"]) for row in quarantined(found.folder)}
    assert {name: reason for name, (reason, _) in listed.items()} == {
        "0001": "image cannot be downloaded", "0002": "image cannot be downloaded", "0003": "unreadable image",
    }  # fmt: skip
    assert "HTTP 404" in listed["0001"][1]
    asked = server.asked.total()
    assert prepare(given, tmp_path / "out", progress=False) == found.folder and server.asked.total() == asked
    prepare(replace(given, name="other"), tmp_path / "out", progress=False)
    assert server.asked.total() == asked + 3  # those that failed, the page twice


def test_settings_that_fetch_nothing_are_refused():
    for name, value in (("timeout", 0), ("workers", 0), ("retries", -1), ("rate", 0.0), ("max_bytes", 0)):
        with pytest.raises(ValueError, match=f"data.download.{name} is"):
            check_download(Download(**{name: value}))


def test_other_schemes_are_not_fetched(tmp_path):
    downloads = Downloads(Download(), tmp_path)
    assert list(downloads.fetch_all(["ftp://host/a.jpg", "file:///a.jpg"])) == []
    assert downloads.read("ftp://host/a.jpg").reason == "URL of a kind that is not read"
    assert downloads.read("file:///a.jpg").detail == "file:///a.jpg: write the path without file://"
    list(downloads.fetch_all(["http://[broken/a.jpg"]))
    assert downloads.read("http://[broken/a.jpg").reason == "image cannot be downloaded"


def test_headers_without_hosts_stop_with_the_hosts_to_choose_from(server, tmp_path):
    with pytest.raises(ValueError, match=r"name 127.0.0.1:\d+ \(2\)\..*data.download.hosts=\[127.0.0.1:\d+\]"):
        fetched(server, tmp_path, ["picture1", "picture2"], headers={"X-Key": "7"})
    assert not server.asked


@pytest.mark.parametrize("host", ["127.0.0.1:9", "localhost:9", "[::1]:9", "0x7f.1:9", "169.254.169.254", "0.0.0.0:9",
                                  "[::ffff:10.0.0.1]", "[64:ff9b::a00:1]", "[fd00::1]", "100.64.0.1"])  # fmt: skip
def test_private_addresses_are_refused(host):
    with pytest.raises(Failure, match=r"is a private address: data.download.private=true"):
        fetch(f"http://{host}/a.jpg", Download(timeout=LONG))


def test_a_name_that_changes_its_meaning_reaches_nothing_private(server, tmp_path, monkeypatch):
    """The name is public when it is looked up first, and private when it is connected to."""
    port, real = server.url.rpartition(":")[2], socket.getaddrinfo
    meanings = ["93.184.216.34"]

    def rebound(host, *given, **options):
        return real(meanings.pop() if meanings and host == "shop.example" else "127.0.0.1", *given, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    downloads = Downloads(Download(timeout=LONG, retries=0, rate=None), tmp_path)
    url = f"http://shop.example:{port}/picture"
    list(downloads.fetch_all([url]))
    assert "shop.example (127.0.0.1) is a private address" in downloads.read(url).detail and not server.asked


def test_a_redirect_to_a_private_address_is_not_followed(server, monkeypatch):
    monkeypatch.setattr(fetching, "is_private", lambda address: address != "127.0.0.1")
    server.other = "http://127.0.0.2:9"
    with pytest.raises(Failure, match=r"127.0.0.2 is a private address"):
        fetch(f"{server.url}/away", Download(timeout=LONG))
    assert fetch(f"{server.url}/move-picture", Download(timeout=LONG)) == PICTURE


def test_a_piece_says_how_long_its_downloads_take(server, tmp_path, caplog, monkeypatch):
    rows = [row | {"photo": f"{server.url}/picture{n}"} for n, row in enumerate(products(12))]
    write_table(tmp_path / "tables" / "products.csv", rows)
    write_table(tmp_path / "tables" / "pairs.csv", pairs(5, 12))
    given = catalog(
        tmp_path / "tables", products="products.csv", pairs="pairs.csv", document={"photo": image(), "title": text()},
        download=Download(rate=None, private=True, workers=1), store=Store(workers=1),
    )  # fmt: skip
    monkeypatch.setattr(progress, "LOG_DELAY", 0.0)
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    monkeypatch.setattr(progress, "_RARER", 0.0)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(progress.logger, "handlers", [caplog.handler])
    caplog.set_level(logging.INFO, logger=progress.logger.name)
    prepare_part(given, tmp_path / "out", Part(1, 2))
    told = "\n".join(caplog.messages)
    assert re.search(r"part 1: downloading images: 1 image, .* left\n", told), told
    assert re.search(r"part 1: checking documents: \d row.*", told), told


@pytest.mark.parametrize("secret", ["user:hunter2@", "?X-Amz-Signature=hunter2&size=1", "?sig=hunter2", "?key=hunter2"])
def test_passwords_of_urls_are_in_no_file_and_no_message(server, tmp_path, secret, capsys):
    host = server.url.removeprefix("http://")
    urls = [
        f"http://{secret}{host}/{name}" if secret.endswith("@") else f"http://{host}/{name}{secret}"
        for name in ["404", *(f"picture{n}" for n in range(9))]
    ]
    rows = [row | {"photo": url} for row, url in zip(products(10), urls, strict=True)]
    write_table(tmp_path / "tables" / "products.csv", rows)
    write_table(tmp_path / "tables" / "pairs.csv", pairs(5, 10))
    given = catalog(
        tmp_path / "tables",
        products="products.csv",
        pairs="pairs.csv",
        document={"photo": image(), "title": text()},
        download=Download(timeout=LONG, retries=0, rate=None, private=True),
        max_bad=1.0,
    )
    found = prepared(given, tmp_path / "out")
    for path in found.folder.parent.rglob("*"):
        assert "hunter2" not in str(path) and not (path.is_file() and b"hunter2" in path.read_bytes()), path
    assert "hunter2" not in "".join(capsys.readouterr())
    if secret.endswith("@"):
        sent = {key.lower(): value for key, value in server.headers["picture1"].items()}
        assert sent["authorization"] == "Basic dXNlcjpodW50ZXIy"
