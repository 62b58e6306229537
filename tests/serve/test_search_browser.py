"""The search page in a real browser, served by a real server on loopback."""

import socket
import threading
import time

import pytest

from helpers.page_shop import ATTACK, picture

pytest.importorskip("fastapi", reason="the search page needs the extra: pip install 'gcl-trainer[serve]'")
uvicorn = pytest.importorskip("uvicorn", reason="the search page needs the extra: pip install 'gcl-trainer[serve]'")
pytest.importorskip("python_multipart", reason="the search page needs the extra: pip install 'gcl-trainer[serve]'")

from gcl.serve.app import build_app  # noqa: E402


@pytest.fixture(scope="module")
def address(engine):
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(build_app(engine, name="shop"), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.started
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def opened(open_page, address):
    def open_it(path: str = "", **options):
        page = open_page(address + path, allowed=address, **options)
        page.wait_for_selector("#about:not(:empty)")
        return page

    return open_it


def search(page, text: str) -> None:
    page.get_by_label("Search for").fill(text)
    page.wait_for_selector(".card")


def names(page, side: int = 0) -> list[str]:
    return page.locator(".sides section").nth(side).locator(".name").all_inner_texts()


def move(page, field: str, value: str) -> None:
    """Moves a slider as a hand does and waits for the answer."""
    with page.expect_response("**/api/search"):
        page.get_by_label(field, exact=True).evaluate(
            "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', { bubbles: true })); }", value
        )
    page.wait_for_selector("#results:not(.waiting)", state="attached")


def test_a_typed_query_shows_both_models(opened, screenshots):
    page = opened()
    assert page.evaluate("document.activeElement.id") == "text"
    page.keyboard.type("red shoes")
    page.wait_for_selector(".card")
    assert page.locator(".sides h2").all_inner_texts() == ["base", "tuned"]
    assert page.locator(".card").count() == 20
    assert "results are common to base and tuned" in page.get_by_role("status").inner_text()
    assert page.url.endswith("?q=red+shoes")
    page.wait_for_load_state("networkidle")
    page.screenshot(path=screenshots / "search-desktop.png")


def test_an_address_with_a_query_searches(opened):
    page = opened("?q=blue")
    page.wait_for_selector(".card")
    assert page.get_by_label("Search for").input_value() == "blue"


def test_sliders_act_at_once_and_reset(opened):
    page = opened()
    search(page, "blue")
    before = names(page)
    move(page, "image", "0")
    by_title = names(page)
    assert by_title != before and page.locator(".weight span").first.inner_text() == "0"
    page.get_by_label("title", exact=True).press("Home")
    page.wait_for_selector("#status.trouble")
    assert "All weights are 0" in page.get_by_role("status").inner_text() and page.locator(".card").count() == 0
    with page.expect_response("**/api/search"):
        page.get_by_role("button", name="As trained").click()
    page.wait_for_selector(".card")
    assert names(page) == before


def test_sliders_move_by_keyboard(opened):
    page = opened()
    search(page, "blue")
    page.get_by_label("image", exact=True).focus()
    with page.expect_response("**/api/search"):
        page.keyboard.press("ArrowLeft")
    assert page.get_by_label("image", exact=True).input_value() == "0.85"


def test_a_chosen_picture_finds_itself(opened, screenshots, tmp_path):
    (tmp_path / "seven.jpg").write_bytes(picture(7))
    page = opened()
    page.get_by_label("or with a picture").set_input_files(tmp_path / "seven.jpg")
    page.wait_for_selector(".card")
    move(page, "title", "0")
    assert names(page)[0] == names(page, 1)[0] == "Product number 7"
    assert page.locator("#preview").evaluate("e => e.decode().then(() => e.naturalWidth)") == 140
    page.screenshot(path=screenshots / "search-picture.png")
    page.get_by_role("button", name="Remove the picture").click()
    page.wait_for_selector(".card", state="detached")
    assert page.locator("#chosen").is_hidden()


def test_a_dropped_picture_is_taken(opened):
    page = opened()
    data = page.evaluate_handle(
        """(bytes) => { const data = new DataTransfer();
             data.items.add(new File([new Uint8Array(bytes)], 'a.jpg', { type: 'image/jpeg' })); return data; }""",
        list(picture(9)),
    )
    page.dispatch_event("body", "dragover", {"dataTransfer": data})
    assert page.evaluate("document.body.className") == "dropping"
    page.dispatch_event("body", "drop", {"dataTransfer": data})
    page.wait_for_selector(".card")
    assert page.evaluate("document.body.className") == "" and page.locator("#chosen").is_visible()


def test_what_is_no_picture_is_refused_in_words(opened, open_page, tmp_path):
    (tmp_path / "list.txt").write_text("not a picture")
    page = opened()
    page.get_by_label("or with a picture").set_input_files(tmp_path / "list.txt")
    page.wait_for_selector("#status.trouble")
    assert "picture cannot be used" in page.get_by_role("status").inner_text()
    open_page.troubles.clear()  # a browser reports the 415, and the preview that cannot be drawn, as errors


def test_titles_stay_text(opened):
    page = opened()
    search(page, "x")
    with page.expect_response("**/api/search"):
        page.get_by_label("Search for").fill(ATTACK)
    page.wait_for_selector("#results:not(.waiting)", state="attached")
    for weights in (("0", "1"), ("1", "1")):
        move(page, "image", weights[0])
    assert page.evaluate("window.hacked") is None and page.locator("#results script").count() == 0


@pytest.mark.parametrize("width", [320, 375])
def test_a_phone_never_scrolls_sideways(opened, screenshots, width):
    page = opened(width=width, height=812)
    search(page, "blue shoes")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(path=screenshots / f"search-{width}.png")
    page.goto(page.url.split("?")[0] + "docs")
    page.wait_for_selector(".call")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_mode(opened, screenshots):
    page = opened(dark=True)
    search(page, "blue shoes")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 22, 26)"
    page.screenshot(path=screenshots / "search-dark.png")


def test_the_interface_has_a_page_of_its_own(open_page, address, screenshots):
    page = open_page(address + "docs", allowed=address)
    page.wait_for_selector(".call table")
    text = page.locator("main").inner_text()
    for word in ("POST /api/search", "weights", "picture", "415", "Product"):
        assert word in text
    page.screenshot(path=screenshots / "search-docs.png", full_page=True)
