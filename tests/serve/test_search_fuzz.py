"""No request makes the service fail: drawn ones, against a real server process."""

import base64
import http.client
import io
import json
import string
from functools import cache
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.page_shop import picture

HOSTILE_WEIGHTS = [
    '{"image": 1e400}', '{"image": -1e400}', '{"image": 1e-400}', '{"image": 1e-46, "title": 1}', '{"title": 5e-324}',
    '{"image": 1e38, "title": 1e38}', '{"image": 1e308, "title": 1e308}', '{"image": NaN}', '{"title": Infinity}',
    '{"image": 1' + "0" * 400 + "}", '{"image": 1' + "0" * 5000 + "}", '{"image": "1"}', '{"image": [1]}', "null", "1",
    '{"\\ud800": 1}', '{"image": "\\ud800"}', '{"image": true}', '{"image": ' + "[" * 900 + "]" * 900 + "}", "[" * 9000,
    '{"image": {"image": {"image": 1}}}', '{"title": 1, "title": 0}', "{}", "\0", "\ud800", "{" * 9000,
]  # fmt: skip
FIELDS = st.sampled_from(["image", "title"]) | st.text(max_size=5)
NUMBERS = st.floats() | st.integers() | st.sampled_from([10**400, -(10**400), 1e-46, 1e39, 0, 1])
WEIGHTS = (
    st.sampled_from(HOSTILE_WEIGHTS)
    | st.dictionaries(FIELDS, NUMBERS | st.text(max_size=5) | st.none() | st.booleans(), max_size=3).map(json.dumps)
    | st.dictionaries(st.sampled_from(["image", "title"]), st.floats(0, 1e6), min_size=1).map(json.dumps)
    | st.text(max_size=20)
)
TEXTS = (
    st.text(st.characters(), max_size=40)  # lone surrogates and NUL included
    | st.sampled_from(["", " ", "\0", "\ud800", "red\udfffshoes", "<|endoftext|>", "x" * 1000, "\U0010ffff" * 1000])
    | st.builds(str.__mul__, st.sampled_from(["x", "\0", "é ", "\ud800"]), st.sampled_from([1001, 1_000_000]))
)
COUNTS = st.none() | st.integers(1, 100) | st.integers() | st.sampled_from(["", "1e3", "nan", "9" * 5000, "٣", "0x1"])
CHARSETS = st.sampled_from(
    [None] * 6
    + ["utf-8", "utf-16", "utf-7", "unicode_escape", "raw_unicode_escape", "idna", "punycode", "undefined", "hex",
       "rot13", "none", "a" * 300, "\0", "ä"]
)  # fmt: skip
OWN = ["image", "title", "text", "picture", "k", "weights", "filters", "like", "mix"]
FILTERS = st.dictionaries(
    st.sampled_from(["category", "price"]) | st.text(max_size=5),
    st.lists(st.sampled_from(["Shoes", "Bags"]) | st.text(max_size=5), max_size=3)
    | st.dictionaries(st.sampled_from(["from", "to"]) | st.text(max_size=3), NUMBERS, max_size=3)
    | st.none() | NUMBERS,
    max_size=2,
)  # fmt: skip
LIKES = st.sampled_from(["p3", "p1", "p11", "\ud800", ""]) | st.text(max_size=5)
SHARES = st.floats() | st.sampled_from([0, 1, 0.5, -1, 10**400])
JUNK = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS, lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from([*OWN, "input", "model", "searches"]), inner, max_size=3), max_leaves=6,
)  # fmt: skip


@cache
def image_of(kind: str) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(picture(3, (40, 60)))).save(out, kind)
    return out.getvalue()


@st.composite
def pictures(draw) -> bytes:
    """Images, sound or damaged: cut, with bytes changed, or with a header in front of noise."""
    data = bytearray(image_of(draw(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"]))))
    match draw(st.sampled_from(["whole", "cut", "changed", "noise"])):
        case "cut":
            data = data[: draw(st.integers(0, len(data)))]
        case "changed":
            for _ in range(draw(st.integers(1, 8))):
                data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
        case "noise":
            data = data[: draw(st.integers(0, 30))] + draw(st.binary(max_size=200))
    return bytes(data)


def coded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def multipart(fields: list[tuple[str, bytes]], data: bytes | None, name: bytes) -> bytes:
    parts = [b'--b\r\ncontent-disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (coded(k), v) for k, v in fields]
    if data is not None:
        parts.append(
            b'--b\r\ncontent-disposition: form-data; name="picture"; filename="%s"\r\n\r\n' % name + data + b"\r\n"
        )
    return b"".join(parts) + b"--b--\r\n"


def data_url(data: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


IMAGES = pictures().map(data_url) | st.sampled_from(
    [
        "data:",
        "data:,x",
        "data:;base64,",
        "data:image/png;base64,=",
        "https://shop.example/1.jpg",
        "http://[",
        "data:\0",
    ]
)


@st.composite
def json_bodies(draw) -> tuple[str, str]:
    """(target, body): of the interface for programs, sound or not."""
    some = lambda **fields: st.fixed_dictionaries({}, optional=fields)  # noqa: E731
    if draw(st.integers(0, 9)) == 0:
        target, body = draw(st.sampled_from(["/api/searches", "/v1/embeddings"])), draw(JUNK)
    elif draw(st.booleans()):
        search = some(
            text=TEXTS, picture=IMAGES, like=LIKES, mix=SHARES, k=st.integers(1, 100), filters=FILTERS,
            weights=st.dictionaries(FIELDS, NUMBERS, max_size=2),
        )  # fmt: skip
        target, body = "/api/searches", {"searches": draw(st.lists(search, max_size=3))}
    else:
        one = TEXTS | IMAGES | some(title=TEXTS, image=IMAGES, price=TEXTS) | JUNK
        fields = some(encoding_format=st.sampled_from(["base64", "float", "x"]), dimensions=st.integers())
        model = draw(st.sampled_from(["base", "tuned", "gpt", "\ud800"]))
        target = "/v1/embeddings"
        body = {"model": model, "input": draw(one | st.lists(one, max_size=3)), **draw(fields)}
    text = json.dumps(body)
    return target, draw(st.sampled_from([text] * 8 + [text[:-1], "[" * 90_000, text.replace(":", ":" + "9" * 5000, 1)]))


@st.composite
def requests(draw) -> tuple[str, str, dict[str, bytes], bytes | None]:
    """(method, target, headers, body)."""
    if draw(st.integers(0, 19)) == 0:
        part = quote(coded(draw(st.text(max_size=30) | st.integers().map(str))), safe="")
        roots = [
            "/pictures/",
            "/pictures/3?number=",
            "/static/",
            "/api/",
            "/api/products/",
            "/health/",
            "/metrics/",
            "/",
        ]
        path = draw(st.sampled_from(roots)) + part
        return draw(st.sampled_from(["GET", "POST", "HEAD", "PUT"])), path, {}, None
    if draw(st.integers(0, 2)) == 0:
        target, text = draw(json_bodies())
        return "POST", target, {"content-type": b"application/json"}, coded(text)
    given_ = {"text": draw(TEXTS), "weights": draw(st.none() | WEIGHTS), "k": draw(COUNTS)}
    if draw(st.integers(0, 3)) == 0:
        given_ |= {"filters": draw(FILTERS.map(json.dumps) | st.text(max_size=9)), "like": draw(LIKES | st.none())}
        given_["mix"] = draw(SHARES | st.text(max_size=3))
    fields = [(key, coded(str(value))) for key, value in given_.items() if value is not None]
    if draw(st.integers(0, 9)) == 0:
        fields += draw(st.lists(st.tuples(st.sampled_from(OWN), st.binary(max_size=20)), max_size=4))
    headers: dict[str, bytes] = {}
    if draw(st.integers(0, 9)) == 0:
        name = draw(st.sampled_from(["origin", "sec-fetch-site", "accept", "cookie", "range", "content-encoding"]))
        headers[name] = draw(st.sampled_from([b"http://[", b"null", b"\xff", b"http://a]b", b"http://\xe2\x84\x80"]))
    match draw(st.sampled_from(["query", "form", "multipart", "multipart", "junk"])):
        case "query":
            return "GET", "/api/search?" + urlencode(fields)[:60_000], headers, None
        case "form":
            kind, body = b"application/x-www-form-urlencoded", urlencode(fields).encode()
        case "multipart":
            data = draw(st.none() | pictures())
            kind, body = (
                b"multipart/form-data; boundary=b",
                multipart(fields, data, draw(st.sampled_from([b"a", b"", b"\xff"]))),
            )
        case _:
            kind = draw(
                st.sampled_from(
                    [b"application/json", b"multipart/form-data", b"multipart/form-data; boundary=b", b"\xff"]
                )
            )
            body = draw(st.binary(max_size=300)) or b"--b\r\n\r\n"
    if charset := draw(CHARSETS):
        kind += b"; charset=" + charset.encode().replace(b"\0", b"")
    return "POST", "/api/search", {"content-type": kind, **headers}, body


class Client:
    """One connection, opened anew where the server closed it."""

    def __init__(self, port: int) -> None:
        self.port, self.connection = port, None

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        if self.connection is not None:
            self.connection.close()

    def ask(self, method: str, target: str, headers: dict[str, bytes], body: bytes | None) -> tuple[int, bytes]:
        if self.connection is None:
            self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=900)
        self.connection.request(method, target, body, headers)
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.will_close:
            self.connection.close()
            self.connection = None
        return answer.status, content


def attack(server, examples: int) -> None:
    """The same requests every time."""
    answers = []

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(requests())
    def one(request):
        try:
            status, content = client.ask(*request)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            client.connection.close()
            client.connection = None  # it had been idle for too long; now it has to answer
            status, content = client.ask(*request)
        assert 200 <= status < 500, (status, content)
        if status != 200 and request[0] != "HEAD" and content[:1] == b"{":
            assert isinstance(json.loads(content)["detail"], str)
        answers.append(status)

    with Client(server.port) as client:
        one()
    assert server.process.poll() is None and "Traceback" not in server.said
    assert len(answers) >= examples and {200, 415, 422} <= set(answers)


def test_no_drawn_request_makes_the_service_fail(server):
    attack(server, 150)


@pytest.mark.slow
def test_thousands_of_drawn_requests_do_not_either(server):
    attack(server, 5000)


def post(server, **fields: str) -> tuple[int, bytes]:
    body = multipart([(key, coded(value)) for key, value in fields.items()], None, b"")
    with Client(server.port) as client:
        return client.ask("POST", "/api/search", {"content-type": b"multipart/form-data; boundary=b"}, body)


@pytest.mark.parametrize("weights", HOSTILE_WEIGHTS)
def test_hostile_weights_are_refused_in_a_sentence(server, weights):
    status, content = post(server, text="red", weights=weights)
    if status == 200:
        assert weights == "null" or len(json.loads(content)["models"]) == 2
    else:
        sentence = json.loads(content)["detail"]
        assert status == 422 and sentence.endswith(".") and len(sentence) < 300 and sentence.isprintable()


@pytest.mark.parametrize(
    "text, status", [("a\0b", 200), ("\ud800", 200), ("x" * 1_000_000, 422), (string.whitespace, 422)]
)
def test_hostile_texts_are_answered(server, text, status):
    answered, content = post(server, text=text)
    assert answered == status, content
