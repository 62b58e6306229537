"""The page in a real browser, as a person uses it: mouse, keyboard, phone, dark mode."""

import csv

import pytest

from gcl.retrieval.page.page import write_page
from gcl.retrieval.tasks.task import ListRecords
from gcl.schema import Field
from helpers.browser import axe_findings
from helpers.page_shop import ATTACK, answers, shop, shop_task


@pytest.fixture(scope="module")
def address(tmp_path_factory, tasks, models, curve):
    path = tmp_path_factory.mktemp("page") / "report.html"
    facts = {"catalog": "shop", "model": "tiny", "seed": 0, "note": ATTACK}
    write_page(path, title="Shop, tuned", tasks=tasks, models=models, curve=curve, facts=facts, details=100)
    return path.as_uri()


def texts(page, selector: str) -> list[str]:
    return page.locator(selector).all_inner_texts()


def choose(page, name: str, value: str) -> None:
    page.locator(".tools").get_by_label(name, exact=True).select_option(value)


def changes(page) -> list[float]:
    return [float(text[2:].split()[0].replace("−", "-")) for text in texts(page, ".row .change")]


def test_it_opens_without_errors_or_requests(open_page, address, screenshots):
    page = open_page(address)
    page.wait_for_selector(".view .card")
    assert page.locator("h1").inner_text() == "Shop, tuned"
    assert page.locator("h2").count() == 5 and page.locator("caption").count() >= 2
    page.evaluate("Promise.all([...document.images].map((image) => image.decode()))")  # rejects what cannot be drawn
    inside = "[...document.querySelectorAll('.frame img')].every((i) => i.offsetHeight <= i.parentNode.offsetHeight)"
    assert page.evaluate(inside), "pictures higher than wide are cut"
    page.screenshot(path=screenshots / "report-desktop.png")
    page.screenshot(path=screenshots / "report-desktop-whole.png", full_page=True)
    page.locator("#searches").screenshot(path=screenshots / "report-searches.png")


def test_losses_come_first_then_gains(open_page, address):
    page = open_page(address)
    choose(page, "Task", "1")
    kinds = page.locator(".row .change").evaluate_all("all => all.map(e => e.classList[1])")
    of_kind = {kind: [c for c, own in zip(changes(page), kinds, strict=True) if own == kind] for kind in kinds}
    assert list(of_kind)[:2] == ["worse", "better"] and kinds == sorted(kinds, key=list(of_kind).index)
    losses, gains = of_kind["worse"], of_kind["better"]
    assert losses == sorted(losses) and losses[-1] < 0 < gains[-1] and gains == sorted(gains, reverse=True)
    assert list(of_kind)[2] == "unsure", "what nobody can tell comes after what can be told"
    choose(page, "Order", "gains")
    assert changes(page)[0] == max(changes(page))
    choose(page, "Show", "worse")
    assert changes(page) and max(changes(page)) < 0


def test_search_finds_words_in_any_order_and_without_accents(open_page, address):
    page = open_page(address)
    field = page.get_by_label("Find a search")
    field.fill("CREME cafe")
    assert set(texts(page, ".query [dir]")) == {"Café crème"}
    assert "2 searches" in page.locator("#browser [role=status]").first.inner_text()
    field.fill("no such words")
    assert (
        page.locator(".row").count() == 0
        and "No search fits" in page.locator("#browser [role=status]").first.inner_text()
    )


def test_tables_sort_both_ways(open_page, address):
    page = open_page(address)
    table = page.locator("#results table.sortable").first
    head = table.locator("thead button", has_text="Searches")
    for expected, order in (("descending", True), ("ascending", False)):
        head.click()
        values = [
            int(value)
            for value in table.locator("tbody td:nth-child(2)").evaluate_all("c => c.map(e => e.dataset.value)")
        ]
        assert values == sorted(values, reverse=order)
        assert table.locator("th[aria-sort]").get_attribute("aria-sort") == expected
    table.locator("thead button", has_text="Task").click()
    names = texts(page, "#results table.sortable:first-of-type tbody th [dir]")
    assert names[:3] == sorted(names[:3])


def test_the_keyboard_does_everything(open_page, address, screenshots):
    page = open_page(address)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("/")
    page.keyboard.type("thing")
    page.keyboard.press("ArrowDown")
    rows = page.locator(".row")
    number = "[...document.querySelectorAll('.row')].indexOf(document.activeElement)"
    assert page.evaluate(number) == 0
    assert page.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 2
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    assert page.evaluate(number) == 1
    page.keyboard.press("Enter")
    assert rows.nth(1).get_attribute("aria-expanded") == "true" and page.locator(".view:visible .card").count() > 10
    page.screenshot(path=screenshots / "report-keyboard.png")
    page.keyboard.press("Escape")
    assert rows.nth(1).get_attribute("aria-expanded") == "false" and page.evaluate(number) == 1
    page.keyboard.press("PageDown")
    assert "51 to" in page.locator("#browser [role=status]").first.inner_text() and page.evaluate(number) == 0
    page.keyboard.press("End")
    assert page.evaluate(number) == rows.count() - 1
    assert page.locator(".row[tabindex='0']").count() == 1, "the list is one stop of the Tab key"


def test_a_search_in_full_shows_both_models(open_page, address):
    page = open_page(address)
    choose(page, "Show", "full")
    page.locator(".row").nth(1).click()
    view = page.locator(".view").nth(1)
    sides = view.locator(".sides section")
    assert sides.count() == 2 and [sides.nth(i).locator(".card").count() for i in (0, 1)] == [10, 10]
    marks = set(texts(page, ".card .mark"))
    assert any(mark.startswith("✓ relevant") for mark in marks) and any(
        mark.startswith("? not judged") for mark in marks
    )
    assert "relevant products are known" in view.inner_text()


def test_a_search_by_picture_shows_it(open_page, address):
    page = open_page(address)
    choose(page, "Task", "0")
    assert page.locator(".query img").count() == page.locator(".row:not(.bare)").count() > 0
    assert page.locator(".query img").first.get_attribute("alt")


def test_a_search_that_is_not_shown_in_full_says_so(open_page, address):
    page = open_page(address)
    bare = page.locator(".row.bare").first
    choose(page, "Order", "name")
    bare.click()
    assert "100 of 132 searches" in bare.locator("..").inner_text()


@pytest.mark.parametrize("width", [320, 375, 768])
def test_a_phone_never_scrolls_sideways(open_page, address, screenshots, width):
    page = open_page(address, width=width, height=812)
    for summary in page.locator("summary").all():
        if not summary.locator("..").get_attribute("open") == "":
            summary.click()
    page.wait_for_selector(".view .sides > :nth-child(2) .card" if width < 640 else ".view .card")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=screenshots / f"report-{width}.png")
    page.locator("#searches").screenshot(path=screenshots / f"report-{width}-searches.png")
    small = page.evaluate(
        "[...document.querySelectorAll('.row, select, input, .pages button')].filter(e => e.offsetHeight < 40).length"
    )
    assert small == 0, "fingers need 40 pixels"


CONTRAST = """(selector) => {
  const part = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map(part);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const text = light(getComputedStyle(document.querySelector(selector)).color);
  const paper = light(getComputedStyle(document.body).backgroundColor);
  return (Math.max(text, paper) + 0.05) / (Math.min(text, paper) + 0.05);
}"""


@pytest.mark.parametrize("dark", [False, True])
def test_both_modes_are_readable(open_page, address, screenshots, dark):
    page = open_page(address, dark=dark)
    page.wait_for_selector(".view .card")
    light = page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number).reduce((a, b) => a + b)"
    )
    assert (light < 150) == dark
    for selector in (
        "body",
        "small",
        ".change.worse",
        ".outcome .better",
        ".outcome .same",
        "caption",
        "nav a",
        ".card .mark",
    ):
        assert page.evaluate(CONTRAST, selector) >= 4.5, selector
    assert axe_findings(page) == []
    if dark:
        page.screenshot(path=screenshots / "report-dark.png")
        page.locator("#searches").screenshot(path=screenshots / "report-dark-searches.png")


def test_attacks_stay_text(open_page, address):
    page = open_page(address)
    page.get_by_label("Find a search").fill("window.hacked")
    assert page.locator(".row").count() == 2
    assert page.locator(".query [dir]").first.evaluate("e => e.textContent") == " ".join(ATTACK.split())
    for row in page.locator(".row").all():
        if row.get_attribute("aria-expanded") == "false":
            row.click()
    page.get_by_label("Find a search").fill("")
    choose(page, "Show", "full")
    for row in page.locator(".row").all():
        if row.get_attribute("aria-expanded") == "false":
            row.click()
    titles = page.locator(".card .name").evaluate_all("all => all.map(e => e.textContent)")
    assert " ".join(ATTACK.split()) in titles
    assert page.evaluate("window.hacked") is None
    assert page.locator("img:not([src^='data:'])").count() == 0 and page.locator("script").count() == 2


def test_the_policy_forbids_what_the_page_does_not_do(open_page, address):
    page = open_page(address)
    page.evaluate(
        "document.head.append(Object.assign(document.createElement('style'), { textContent: 'body {display: none}' }))"
    )
    assert page.evaluate("getComputedStyle(document.body).display") == "block"
    assert page.evaluate("fetch('https://example.com/').then(() => 'reached', () => 'stopped')") == "stopped"
    assert (
        page.evaluate(
            "(() => { try { document.body.innerHTML = '<b>'; return 'set'; } catch { return 'stopped'; } })()"
        )
        == "stopped"
    )
    open_page.troubles.clear()  # the violations just provoked are reported as console errors


def test_ten_thousand_searches_stay_quick(open_page, tmp_path):
    task = shop_task("zero_shot.test", shop(), [f"search number {n}" for n in range(10_000)])
    results = {label: {"zero_shot": answers(task, q, k=10)} for label, q in (("base", 1.0), ("tuned", 1.4))}
    page = open_page(write_page(tmp_path / "r.html", title="many", tasks=[task], models=results).as_uri())
    page.wait_for_selector(".row")
    assert (
        page.locator(".row").count() == 50
        and "10,000 searches" in page.locator("#browser [role=status]").first.inner_text()
    )
    spent = page.evaluate(
        """() => Math.min(...['7', '77', '8', '88', '9', '99'].map((text) => {
             const field = document.querySelector('input[type=search]'), start = performance.now();
             field.value = text; field.dispatchEvent(new Event('input')); return performance.now() - start; }))"""
    )
    assert page.locator(".row").count() == 50 and spent < 1000


def test_without_javascript_the_findings_still_read(chromium, address):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert "got better" in page.locator(".outcome").inner_text() and page.locator("tbody tr").count() > 3
    assert "switched off" in page.locator("#browser").inner_text()
    context.close()


@pytest.mark.parametrize("labels", [["base"], ["base", "tuned", "third"]])
def test_one_model_or_three(open_page, tmp_path, tasks, models, labels):
    results = {label: models["tuned" if label == "tuned" else "base"] for label in labels}
    page = open_page(write_page(tmp_path / "r.html", title="t", tasks=tasks, models=results).as_uri())
    page.wait_for_selector(".view .card")
    assert page.locator(".view .sides section").count() == min(2, len(labels))
    if len(labels) == 3:
        choose(page, "base against", "1")
        page.locator(".row").first.click()
        assert page.locator(".view h3").nth(1).inner_text().startswith("tuned")
        assert any(change < 0 for change in changes(page))


def test_a_link_opens_its_search_wherever_the_list_has_it(open_page, address):
    page = open_page(f"{address}#q=zero_shot/zero_shot.test-57")
    row = page.locator(".row[aria-expanded='true']")
    assert row.count() == 1 and row.evaluate("e => document.activeElement === e")
    card = page.locator(".view .card").first
    assert card.get_attribute("data-task") == "zero_shot" and card.get_attribute("data-query") == "zero_shot.test-57"
    assert 0 <= row.bounding_box()["y"] < 900, "it is scrolled to"
    assert page.locator(".view .link").get_attribute("href") == "#q=zero_shot/zero_shot.test-57"
    page.locator(".example h4 a").first.click()
    page.wait_for_function("document.querySelectorAll('.row[aria-expanded=true]').length > 0")
    assert page.evaluate("decodeURIComponent(location.hash)").startswith("#q=")
    page.goto(f"{address}#q=creme+cafe")
    page.wait_for_function("document.querySelectorAll('.row').length === 2")
    assert set(texts(page, ".query [dir]")) == {"Café crème"}


def test_each_result_says_what_it_is(open_page, address, tasks):
    page = open_page(f"{address}#q=zero_shot/zero_shot.test-3")
    judged = tasks[1].qrels["zero_shot.test-3"]
    cards = page.locator(".sides .card")
    grades = {card.get_attribute("data-document"): card.get_attribute("data-grade") for card in cards.all()}
    assert {float(grades[name]) for name in judged.keys() & grades.keys()} <= {0.0, 1.0, 2.0, 3.0}
    assert {grade for name, grade in grades.items() if name not in judged} == {"not judged"}


def test_the_list_downloads_as_it_is_shown(open_page, address, models, tmp_path):
    page = open_page(address)
    choose(page, "Task", "1")
    choose(page, "Order", "gains")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download this list").click()
    download.value.save_as(tmp_path / "searches.csv")
    with open(tmp_path / "searches.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60 and {row["task"] for row in rows} == {"zero_shot"}
    values = dict(
        zip(models["tuned"]["zero_shot"].query_ids, models["tuned"]["zero_shot"].values["ndcg@10"], strict=True)
    )
    for row in rows:
        assert float(row["tuned nDCG@10"]) == pytest.approx(values[row["query_id"]], abs=1e-6)
    assert rows[0]["outcome"] == "better" and {"worse", "cannot tell"} <= {row["outcome"] for row in rows}
    assert not any(row["search"].startswith(("=", "+", "@")) for row in rows)


def test_a_phone_shows_one_model_at_a_time(open_page, address):
    page = open_page(address, width=390, height=800)
    sides = page.locator(".sides > section")
    sides.nth(1).wait_for()
    assert not sides.nth(0).is_visible()
    page.get_by_role("button", name="base", exact=True).first.click()
    assert sides.nth(0).is_visible() and not sides.nth(1).is_visible()
    label = "e => getComputedStyle(e, '::before').content"
    assert page.locator("#results tbody td.change").first.evaluate(label) == '"Change"'


def test_pictures_stand_under_the_verdict(open_page, address):
    page = open_page(address)
    assert texts(page, ".examples h3") == ["Gained most", "Lost most"]
    assert page.locator(".example").count() == 6 and page.locator(".example .shots img").count() > 20
    gained, lost = (page.locator(".examples section").nth(n).locator(".change") for n in (0, 1))
    assert all("▲" in text for text in gained.all_inner_texts()) and all("▼" in text for text in lost.all_inner_texts())


def test_a_catalog_without_pictures_has_no_empty_frame(open_page, tmp_path):
    side = {"title": Field()}
    corpus = ListRecords([f"p{n}" for n in range(40)], [{"title": f"Product {n}"} for n in range(40)], side)
    task = shop_task("zero_shot.test", corpus, [f"search {n}" for n in range(30)])
    results = {label: {"zero_shot": answers(task, q, seed=s)} for label, q, s in (("base", 1, 1), ("tuned", 2, 2))}
    page = open_page(write_page(tmp_path / "r.html", title="t", tasks=[task], models=results).as_uri())
    page.wait_for_selector(".view .card")
    assert page.locator(".frame").count() == 0 and page.locator(".words li").count() == 48


def test_a_leaderboard_says_who_won_and_who_ties(open_page, tmp_path, tasks):
    models = {
        label: {task.name: answers(task, quality, seed=seed) for task in tasks}
        for label, quality, seed in (("ours", 5, 1), ("twin of ours", 5, 1), ("<b>weak</b>", 0.2, 2))
    }
    page = open_page(write_page(tmp_path / "r.html", title="t", tasks=tasks, models=models).as_uri())
    assert "ours and twin of ours tie for the lead" in page.locator(".verdict").inner_text()
    board = page.locator(".board").nth(1)
    assert board.locator("b").all_inner_texts() == ["ours", "twin of ours", "<b>weak</b>"]
    assert board.locator(".rank").all_inner_texts() == ["1", "1", "3"] and board.locator(".bracket.tie").count() == 2
    del models["twin of ours"]
    models["third"] = models["<b>weak</b>"]
    page = open_page(write_page(tmp_path / "s.html", title="t", tasks=tasks, models=models).as_uri())
    assert page.locator(".verdict").inner_text().startswith("ours wins")
