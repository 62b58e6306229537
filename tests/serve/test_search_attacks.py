"""What is done to the search service from outside: slow and large requests, other sites, files that are no pictures."""

import io
import socket
import subprocess
import sys
import time

import pytest
from PIL import Image

from gcl.data.images import READ
from gcl.errors import ConfigError
from gcl.serve.listen import close, listen, names_of
from helpers.page_shop import picture

pytest.importorskip("fastapi", reason="the search page needs the extra: pip install 'gcl-trainer[serve]'")
pytest.importorskip("python_multipart", reason="the search page needs the extra: pip install 'gcl-trainer[serve]'")

from fastapi.testclient import TestClient

from gcl.serve.app import PICTURE_BYTES, build_app

HEAD = b"POST /api/search HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: multipart/form-data; boundary=b\r\n"
PART = b'--b\r\ncontent-disposition: form-data; name="picture"; filename="a"\r\n\r\n'
CHUNKS = HEAD + b"transfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(PART), PART)


@pytest.fixture(scope="module")
def client(engine):
    return TestClient(build_app(engine, name="shop"), base_url="http://127.0.0.1")


def connected(server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=900)


def whole(connection: socket.socket) -> bytes:
    """One answer, whose head and body may come in pieces."""
    got = b""
    while b"\r\n\r\n" not in got:
        got += connection.recv(65536)
    head, _, body = got.partition(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < int(length.partition(b":")[2]):
        body += connection.recv(65536)
    return head


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize(
    "begun",
    [b"", b"GET /api/catalog HTTP/1.1\r\nx: ", HEAD + b"content-length: 5000\r\n\r\n" + PART,
     CHUNKS],
    ids=["nothing", "header", "body", "chunks"],
)  # fmt: skip
def test_a_client_that_sends_forever_is_cut(server, begun):
    """A byte comes often enough, and yet the whole has its time."""
    start = time.monotonic()
    with connected(server) as connection:
        connection.sendall(begun)
        connection.settimeout(0.3)
        answer = b""
        while time.monotonic() - start < 900:
            try:
                part = connection.recv(65536)
            except TimeoutError:
                if begun:
                    connection.send(b"1\r\nx\r\n" if begun == CHUNKS else b"x")
                continue
            except ConnectionError:
                break
            if not part:
                break
            answer += part
        took = time.monotonic() - start
    assert server.seconds - 0.5 < took < 900
    if begun:
        assert answer.startswith(b"HTTP/1.1 408 ") and b"not complete within %g seconds." % server.seconds in answer
    else:
        assert answer == b"", "browsers open connections beforehand"
    assert "Traceback" not in server.said


def test_the_clock_runs_for_every_request_of_a_connection_and_only_while_it_is_read(server):
    with connected(server) as connection:
        for _ in range(12):  # together longer than one request may take, each far shorter
            connection.sendall(b"GET /api/catalog HTTP/1.1\r\nhost: 127.0.0.1\r\n")
            time.sleep(0.1 * server.seconds)
            connection.sendall(b"\r\n")
            assert whole(connection).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET /api/catalog HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\nGET / HTTP/1.1\r\n")  # pipelined
        assert b"HTTP/1.1 408 " in rest(connection)


def test_a_declared_length_is_refused_before_anything_is_read(server):
    for length in (b"200000000", b"9" * 19):
        with connected(server) as connection:
            connection.sendall(HEAD + b"content-length: " + length + b"\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")  # 408 where it waited for the body


@pytest.mark.parametrize("chunked", [False, True])
def test_who_keeps_sending_too_much_still_reads_the_refusal(server, chunked):
    """The answer is not lost to a reset, and no more than the limit is taken in."""
    megabyte = bytes(1_000_000)
    with connected(server) as connection:
        if chunked:
            connection.sendall(CHUNKS)
        else:
            connection.sendall(HEAD + b"content-length: 30000000\r\n\r\n" + PART)
        for _ in range(14):
            connection.sendall(b"%x\r\n%s\r\n" % (len(megabyte), megabyte) if chunked else megabyte)
        answer = rest(connection)
    assert answer.startswith(b"HTTP/1.1 413 ") and b"too large" in answer
    assert "Traceback" not in server.said


def test_a_client_that_leaves_is_no_error(server):
    for begun in (b"GET /", HEAD + b"content-length: 5000\r\n\r\n" + PART, HEAD + b"content-length: 30000000\r\n\r\n"):
        connected(server).close()
        with connected(server) as connection:
            connection.sendall(begun)
    with connected(server) as connection:
        connection.sendall(b"GET /api/catalog HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        assert rest(connection).startswith(b"HTTP/1.1 200 ")
    assert "Traceback" not in server.said


SITES = [
    "https://attacker.example",
    "null",
    "http://[",
    "http://127.0.0.1:81",
    "https://127.0.0.1.attacker.example",
    "",
]


@pytest.mark.parametrize(
    "address",
    [
        "/api/search?text=x",
        "/api/catalog",
        "/pictures/3",
        "/",
        "/docs",
        "/static/search.js",
        "/api/products/p3",
        "/health/live",
        "/metrics",
    ],
)
def test_other_sites_are_refused_whatever_they_ask_for(client, address):
    for origin in SITES:
        assert client.get(address, headers={"origin": origin}).status_code == 403, origin
    for site in ("cross-site", "same-site", "new-word"):
        for mode, destination in (("no-cors", "image"), ("cors", "empty"), ("navigate", "iframe")):
            headers = {"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": destination}
            answer = client.get(address, headers=headers)
            assert answer.status_code == 403 and answer.json()["detail"].startswith("This server answers its own page")
    for site in ("same-origin", "none"):
        assert client.get(address, headers={"sec-fetch-site": site, "origin": "http://127.0.0.1"}).status_code == 200
    assert client.get(address, headers={"origin": "HTTP://127.0.0.1"}).status_code == 200


def test_other_sites_may_link_to_the_pages_and_to_nothing_that_costs_work(client):
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client.get("/?q=red", headers=link).status_code == 200
    assert client.get("/docs", headers=link).status_code == 200
    for address in (
        "/api/search?text=x",
        "/api/catalog",
        "/pictures/3",
        "/metrics",
        "/health/live",
        "/api/products/p3",
    ):
        assert client.get(address, headers=link).status_code == 403
    assert client.post("/", headers=link).status_code == 403
    assert client.post("/api/search", data={"text": "x"}, headers=link).status_code == 403
    for address in ("/api/searches", "/v1/embeddings"):
        assert client.post(address, json={}, headers=link).status_code == 403
        assert client.post(address, content=bytes(PICTURE_BYTES + 200_000)).status_code == 413


def test_names_are_those_of_the_server_and_those_it_was_given(engine):
    def answers(names, *hosts):
        client = TestClient(build_app(engine, name="shop", hosts=names), base_url="http://127.0.0.1")
        return [client.get("/api/catalog", headers={"host": host}).status_code for host in hosts]

    rebound = "attacker.example", "localhost.attacker.example", "127.0.0.1.attacker.example:8765"
    local, open_ = names_of("127.0.0.1"), names_of("0.0.0.0")
    for names in (local, open_):
        assert answers(names, *rebound) == [421] * 3
        assert answers(names, "localhost:8765", "LOCALHOST", "[::1]:80", "127.0.0.1") == [200] * 4
    assert answers(local, "192.0.2.1") == [421], "a server on loopback is asked there only"
    assert answers(open_, "192.0.2.1:80", "[2001:db8::1]:80", socket.gethostname()) == [200] * 3
    named = names_of("127.0.0.1", ["Search.shop.example"])
    assert answers(named, "search.shop.example", *rebound) == [200, 421, 421, 421]
    assert answers(names_of("0.0.0.0", ["*"]), *rebound) == [200] * 3
    refused = TestClient(build_app(engine, name="shop"), base_url="http://attacker.example").get("/")
    assert "hosts=[attacker.example]" in refused.json()["detail"]


def image(size: tuple[int, int], kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "red").save(out, kind)
    return out.getvalue()


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)


@pytest.mark.parametrize(
    "data, status, words",
    [
        (HEIC, 415, "HEIC"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', 415, "it is an SVG drawing"),
        (b"%PDF-1.7\n" + bytes(99), 415, "it is a PDF document"),
        (b"", 415, "the file is empty"),
        (b" \n ", 415, "white space"),
        (b"\0\0\0\x18ftypisom" + bytes(40), 415, "it is a video"),
        (image((60, 90), "WEBP")[:20], 415, "the file is cut off or damaged"),
        (picture(1)[:2], 415, "the file is cut off or damaged"),
        (picture(1)[:900], 415, "the file is cut off or damaged"),
        (image((60, 90))[:150], 415, "the file is cut off or damaged"),
        (b"words", 415, "it is no image, or of a kind that is not read"),
        (image((2, 201)), 415, "2 x 201, one side may be 100 times as long"),
        (image((201, 2), "BMP"), 415, "201 x 2, one side may be 100 times as long"),
        (image((9000, 6000)), 413, "9000 x 6000, the limit is 50000000"),
        (bytes(PICTURE_BYTES + 1), 413, "the limit is 10 MB"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_as_a_picture_is_called_by_its_name(client, data, status, words):
    answer = client.post("/api/search", files={"picture": data}, data={"text": "x"})
    sentence = answer.json()["detail"]
    assert answer.status_code == status and words in sentence and sentence.endswith(".")
    assert status == 413 or READ in sentence
    assert "BytesIO" not in sentence and "data." not in sentence


def test_a_taken_port_is_told_before_anything_is_loaded():
    first = listen("127.0.0.1", 0)
    port = first[0].getsockname()[1]
    try:
        with pytest.raises(ConfigError, match=rf"^port={port} is taken at 127.0.0.1: .* port={port + 1}\.$"):
            listen("127.0.0.1", port)
        with pytest.raises(ConfigError, match="is taken at 0.0.0.0"):
            listen("0.0.0.0", port)
        code = (
            "import sys; from gcl.commands.search import SearchOptions, serve; from gcl.errors import ConfigError\n"
            "try: serve(None, SearchOptions(run='x', port=int(sys.argv[1])))\n"
            "except ConfigError as error: print(error, 'torch' in sys.modules)"
        )
        said = subprocess.run(
            [sys.executable, "-c", code, str(port)], capture_output=True, text=True, check=True
        ).stdout
        assert f"port={port} is taken" in said and said.rstrip().endswith("False")
    finally:
        close(first)


@pytest.mark.parametrize("host", ["no.such.name.invalid", "192.0.2.1", "a" * 300, "host name"])
def test_a_host_that_is_not_this_machine_is_told(host):
    with pytest.raises(ConfigError, match="is no address of this machine"):
        listen(host, 0)
