"""The search page in a real browser, served by a real server on loopback."""

import pytest

from helpers.answering import answering
from helpers.browser import axe_findings
from helpers.page_shop import ATTACK, picture

sync_api = pytest.importorskip("playwright.sync_api")
pytest.importorskip("fastapi", reason="the search page needs the extra: pip install 'gcl-trainer[serve]'")
pytest.importorskip("uvicorn", reason="the search page needs the extra: pip install 'gcl-trainer[serve]'")
pytest.importorskip("python_multipart", reason="the search page needs the extra: pip install 'gcl-trainer[serve]'")

from gcl.serve.app import build_app  # noqa: E402


@pytest.fixture(scope="module")
def address(engine, columns):
    with answering(build_app(engine, name="shop", links=columns.links)) as place:
        yield place


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


def settled(page) -> None:
    page.wait_for_selector("#results:not(.waiting) .card")
    page.wait_for_load_state("networkidle")


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
    assert "Found in" in page.get_by_role("status").inner_text()
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
        page.get_by_role("button", name="Back to the catalog’s weights").click()
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
    page.get_by_label("with a picture").set_input_files(tmp_path / "seven.jpg")
    page.wait_for_selector(".card")
    move(page, "title", "0")
    assert names(page)[0] == names(page, 1)[0] == "Product number 7"
    assert page.locator("#preview").evaluate("e => e.decode().then(() => e.naturalWidth)") == 140
    page.screenshot(path=screenshots / "search-picture.png")
    page.get_by_role("button", name="Remove", exact=True).click()
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
    page.get_by_label("with a picture").set_input_files(tmp_path / "list.txt")
    page.wait_for_selector("#status.trouble")
    assert "picture cannot be used" in page.get_by_role("status").inner_text()
    assert page.locator("#preview").is_hidden() and page.locator("#chosen-name").inner_text() == "list.txt"
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


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_never_scrolls_sideways(opened, screenshots, width):
    page = opened(width=width, height=812)
    search(page, "blue shoes")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".sides h2").all_text_contents() == ["tuned"] and not page.locator("#sliders").is_visible()
    assert page.locator(".card").first.bounding_box()["y"] < 470, "results first"
    page.get_by_role("button", name="base", exact=True).click()
    assert page.locator(".sides h2").all_text_contents() == ["base"] and page.url.endswith("show=base")
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
    for word in ("POST /api/search", "weights", "picture", "415", "ModelResults", "/v1/embeddings", "filters"):
        assert word in text
    page.screenshot(path=screenshots / "search-docs.png", full_page=True)


def test_the_address_is_the_search_and_back_goes_back(opened):
    page = opened()
    search(page, "blue")
    settled(page)
    move(page, "image", "0.5")
    category = page.locator(".facet").first
    category.locator("summary").click()
    with page.expect_response("**/api/search"):
        category.get_by_label("Bags").check()
    page.locator(".facet").nth(1).locator("summary").click()
    with page.expect_response("**/api/search"):
        page.get_by_label("price to").fill("40")
    settled(page)
    shown, link = names(page), page.url
    assert link.endswith("?q=blue&w.image=0.5&f.category=Bags&f.price=..40") and 0 < len(shown) <= 10
    assert page.locator("#settings-say").inner_text().strip() == "(1 weight changed, 2 filters)"

    other = opened(link.partition("/?")[2] and "?" + link.partition("/?")[2])
    settled(other)
    assert names(other) == shown and other.get_by_label("Bags").is_checked()
    assert other.get_by_label("price to").input_value() == "40"
    assert other.get_by_label("image", exact=True).input_value() == "0.5"

    for expected in ("?q=blue&w.image=0.5&f.category=Bags", "?q=blue&w.image=0.5", "?q=blue", ""):
        page.go_back()
        assert page.url.partition("/?")[2] == expected[1:]
    page.wait_for_selector(".card", state="detached")
    assert page.get_by_label("Search for").input_value() == ""
    page.go_forward()
    settled(page)
    assert page.get_by_label("Search for").input_value() == "blue" and page.locator(".card").count() == 20


def test_a_product_opens_in_full_and_leads_to_others_like_it(opened, screenshots):
    page = opened("?q=blue")
    settled(page)
    page.locator(".card .name").first.click()
    page.wait_for_selector("dialog[open] h2")
    title = page.locator(".card .name").first.inner_text()
    dialog = page.get_by_role("dialog", name=title)
    assert "place 1, similarity" in dialog.inner_text()
    product = page.url.partition("product=")[2]
    link = dialog.get_by_role("link", name="Its page in the shop")
    if link.count():
        assert link.get_attribute("href") == f"https://shop.example/{product}"
    page.wait_for_load_state("networkidle")
    page.screenshot(path=screenshots / "search-product.png")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog[open]", state="detached")
    page.wait_for_url(lambda url: "product=" not in url)
    page.go_back()
    page.wait_for_selector("dialog[open]")
    with page.expect_response("**/api/search"):
        dialog.get_by_role("button", name="More like this").click()
    settled(page)
    assert page.url.endswith(f"?like={product}") and title not in (names(page)[0], names(page, 1)[0])
    sync_api.expect(page.locator("#chosen-name")).to_have_text(f"Like {title}")
    assert page.locator("#mixing").is_hidden()
    search(page, "red")
    page.wait_for_selector("#mixing:not([hidden])")
    said = page.locator("#mix-says")
    assert said.inner_text() == "Words and product count the same: first come products that are near to both."
    page.get_by_label("Words", exact=True).focus()
    with page.expect_response("**/api/search"):
        page.keyboard.press("End")
    assert said.inner_text() == "Only the product counts, not the words." and "mix=1" in page.url


def test_the_smaller_group_is_marked_in_one_list(opened):
    page = opened("?q=blue")
    settled(page)
    base, tuned = (set(page.locator(".sides section").nth(side).locator(".name").all_inner_texts()) for side in (0, 1))
    first, second = (page.locator(".sides section").nth(side).locator(".mark").count() for side in (0, 1))
    assert first == 0 and second == min(len(base & tuned), len(tuned - base)) <= 5
    assert (
        page.locator(".sides p")
        .nth(1)
        .inner_text()
        .startswith(f"{len(base & tuned)} of 10" if base & tuned else "None of these")
    )


def test_a_text_that_is_too_long_is_refused_in_words(opened, open_page):
    page = opened()
    page.get_by_label("Search for").fill("x" * 1200)
    page.wait_for_selector("#status.trouble")
    assert page.get_by_role("status").inner_text() == (
        "The text has 1,200 characters; a search has at most 1,000. Shorten it."
    )
    open_page.troubles.clear()  # a browser reports the 422


UNREADABLE = """() => {
  const numbers = (color) => color.match(/[0-9.]+/g).map(Number);
  const linear = (c) => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
  const light = (color) => {
    const [r, g, b] = numbers(color).map((c) => linear(c / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor;
      if ((numbers(color)[3] ?? 1) > .99) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const hasText = (node) => [...node.childNodes].some((one) => one.nodeType === 3 && one.textContent.trim());
  const shown = [...document.querySelectorAll("body *")].filter((node) => node.checkVisibility() && hasText(node));
  return shown.filter((node) => {
    const [one, two] = [light(getComputedStyle(node).color), light(behind(node))].sort((a, b) => b - a);
    return (one + .05) / (two + .05) < 4.5 || parseFloat(getComputedStyle(node).fontSize) < 12.5;
  }).map((node) => node.outerHTML.slice(0, 120));
}"""
NAMELESS = """() => {
  const labels = (node) => [...node.labels ?? []].map((one) => one.textContent);
  const name = (node) => [node.getAttribute("aria-label"), node.textContent, ...labels(node)].join("").trim();
  const controls = [...document.querySelectorAll("button, a, input, summary")].filter((one) => one.checkVisibility());
  return controls.filter((node) => !name(node) || node.getBoundingClientRect().height < 16)
    .map((node) => node.outerHTML.slice(0, 120));
}"""


@pytest.mark.parametrize("width, dark", [(390, False), (768, True), (1280, False), (1280, True)])
def test_everything_has_a_name_and_can_be_read(opened, screenshots, width, dark):
    """Names, contrast, sizes, ids and headings; and all that axe-core finds."""
    page = opened("?q=blue&like=p7&f.category=Bags&w.image=0.5", width=width, dark=dark)
    settled(page)
    if not page.locator("#sliders").is_visible():
        page.locator("#settings > summary").click()
    for view in ("results", "product"):
        if view == "product":
            page.locator(".card .name").first.click()
            page.wait_for_selector("dialog[open] h2")
        assert page.evaluate(UNREADABLE) == [] and page.evaluate(NAMELESS) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        ids = page.locator("[id]").evaluate_all("nodes => nodes.map((node) => node.id)")
        assert len(ids) == len(set(ids)) and page.locator("h1").count() == 1
        page.screenshot(path=screenshots / f"search-{view}-{width}{'-dark' * dark}.png")
        assert axe_findings(page) == []


def test_controls_are_reached_by_keyboard_in_the_order_they_are_read(opened):
    page = opened("?q=blue", width=390, height=844)
    settled(page)
    first = page.locator(".card .name").first.inner_text()
    order = []
    for _ in range(8):
        order.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", order
        page.keyboard.press("Tab")
    # a file's field holds its button as a second stop, in some browsers
    assert [one for at, one in enumerate(order) if one not in order[:at]][:6] == [
        "text", "picture", "Weights and filters", "base", "tuned", first,
    ]  # fmt: skip
    skip = page.locator(".skip")
    skip.focus()
    assert skip.bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "results"
