"""Grading on the report page, in a real browser: keys, buttons, undo, a phone, another visit, and the file it gives."""

import pytest

from gcl.retrieval.page.page import write_page
from gcl.retrieval.tasks.judgments import GRADES, read_judgments

OPEN = ".card[data-grade='not judged']"


@pytest.fixture(scope="module")
def address(tmp_path_factory, tasks, models):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(path, title="Shop, tuned", tasks=tasks, models=models, details=30, catalog="0123")
    return path.as_uri()


def opened(open_page, address, **options):
    page = open_page(address, **options)
    page.locator(f".view {OPEN} .grades:visible").first.wait_for()
    return page


def key_of(card) -> tuple[str, str, str]:
    return tuple(card.get_attribute(f"data-{name}") for name in ("task", "query", "document"))


def focused(page):
    return page.locator(".card:has(:focus)")


def test_keys_grade_and_go_on_buttons_grade_and_undo_takes_back(open_page, address, screenshots, tmp_path):
    page = opened(open_page, address)
    status = page.locator(".judged .status")
    assert "can be graded" in status.inner_text() and not page.get_by_role("button", name="Undo").is_visible()
    page.locator(OPEN).first.locator(".grades [tabindex='0']").focus()
    expected = {}
    for grade in (4, 0, 2):
        card = focused(page)
        assert key_of(card) not in expected, "a key goes on to what has no grade yet"
        expected[key_of(card)] = grade
        page.keyboard.press(str(grade))
    card = focused(page)
    card.get_by_role("radio", name=f"1, {GRADES[1]}").click()
    expected[key_of(card)] = 1
    assert f"Graded 1, {GRADES[1]}. 4 results of 1 search graded here, kept in this browser" in status.inner_text()
    task, query, document = next(iter(expected))
    same = page.locator(f"{OPEN}[data-task='{task}'][data-query='{query}'][data-document='{document}']")
    assert set(same.locator(".mark").all_text_contents()) == {f"you: 4, {GRADES[4]}"}, "wherever it is shown"
    page.screenshot(path=screenshots / "report-judging.png")

    page.keyboard.press("u")
    assert card.locator("[aria-checked='true']").count() == 0 and "not judged" in card.locator(".mark").inner_text()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expected[key_of(card)] = int(card.locator("[aria-checked='true']").inner_text())
    page.keyboard.press("Delete")
    page.get_by_role("button", name="Undo").click()
    assert card.locator("[aria-checked='true']").inner_text() == str(expected[key_of(card)])

    page.reload()
    page.wait_for_selector(f".view {OPEN} .grades")
    assert "4 results of 1 search graded here" in status.inner_text() and page.locator(".graded").count() >= 4
    assert save(page, tmp_path) == expected


def save(page, folder):
    with page.expect_download() as download:
        page.get_by_role("button", name="Download qrels.csv").click()
    download.value.save_as(folder / "qrels.csv")
    return {(line.task, line.query, line.product): line.value for line in read_judgments(folder / "qrels.csv").lines}


def test_several_tasks_and_hostile_ids_come_back_from_the_file(open_page, address, tmp_path):
    page = opened(open_page, address)
    hostile = {"=1+1": 3, "@x": 0, "-5": 1, "-cmd": 2, 'a,"b"': 4, "two\nlines": 1, "é鞋": 2}
    page.evaluate(
        "([first, second]) => { localStorage.setItem('gcl judgments 0123 zero_shot', JSON.stringify({'=q': first}));"
        "localStorage.setItem('gcl judgments 0123 photo', JSON.stringify(second)); }",
        [hostile, {"photo-1": {"p3": 4}}],
    )
    page.reload()
    page.wait_for_selector(OPEN)
    assert "8 results of 2 searches graded here" in page.locator(".judged .status").inner_text()
    expected = {("zero_shot", "=q", product): grade for product, grade in hostile.items()}
    assert save(page, tmp_path) == {**expected, ("photo", "photo-1", "p3"): 4}
    page.evaluate("localStorage.clear()")


def test_another_catalog_begins_anew(open_page, tasks, models, tmp_path):
    write_page(tmp_path / "a.html", title="Shop", tasks=tasks, models=models, details=5, catalog="another")
    page = opened(open_page, (tmp_path / "a.html").as_uri())
    assert "can be graded" in page.locator(".judged .status").inner_text()


def test_what_is_judged_completely_asks_for_nothing(open_page, tasks, models, tmp_path):
    from dataclasses import replace

    import numpy as np

    from gcl.retrieval.tasks.task import JudgedPairs

    def whole(task):
        queries, documents = len(task.queries), len(task.corpus)
        query, document = np.divmod(np.arange(queries * documents), documents)
        return replace(task, judgments=JudgedPairs(query, document, (document == query % documents) + 0.0))

    write_page(tmp_path / "b.html", title="Shop", tasks=[whole(task) for task in tasks], models=models, details=200)
    page = open_page((tmp_path / "b.html").as_uri())
    page.wait_for_selector(".view .card")
    assert page.locator(".grades").count() == 0 and page.locator(".judged").count() == 0


@pytest.mark.parametrize("width", [390, pytest.param(768, marks=pytest.mark.slow)])
def test_fingers_find_the_grades(open_page, address, width, screenshots):
    page = opened(open_page, address, width=width, dark=width == 390)
    button = page.locator(f"{OPEN}:visible .grades button").nth(2)
    button.click()
    box = button.bounding_box()
    assert box["width"] >= 24 and box["height"] >= (44 if width < 640 else 24)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator(".view").first.screenshot(path=screenshots / f"report-judging-{width}.png")
