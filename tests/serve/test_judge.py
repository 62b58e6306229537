"""Judging a pool: who gets what, what is kept, what is refused, and the page in a real browser with two judges."""

import json
import urllib.error
import urllib.request

import pytest

from gcl.retrieval.analysis.pool import in_order, pooled
from gcl.retrieval.tasks.judgments import read_judgments
from helpers.answering import answering
from helpers.browser import axe_findings
from helpers.page_shop import ATTACK

pytest.importorskip("fastapi", reason="the page needs the extra: pip install 'gcl-trainer[serve]'")
pytest.importorskip("uvicorn", reason="the page needs the extra: pip install 'gcl-trainer[serve]'")

from gcl.serve.judge_app import Place, build_app
from gcl.serve.judging import Judging, Ledger, Pair

PAIRS = [Pair("task", f"q{n // 4}", f"p{n % 4}") for n in range(200)]


def judge_all(judging, names, say):
    """Everybody in turn until nobody gets anything; returns what each was shown, in order."""
    shown = {name: [] for name in names}
    while sum(give(judging, name, shown, say) for name in names):
        pass
    return shown


def give(judging, name, shown, say):
    number = judging.current(name)
    if number is None:
        return False
    assert judging.current(name) == number, "who asks again gets the same"
    shown[name].append(judging.pairs[number])
    judging.say(name, judging.pairs[number], say(name, judging.pairs[number]))
    return True


def test_every_pair_is_graded_once_a_share_twice_and_never_by_one_judge_twice(tmp_path):
    judging = Judging(PAIRS, Ledger(tmp_path / "judgments.jsonl"), twice=0.25)
    shown = judge_all(judging, ["Ann", "Ben", "Cem"], lambda name, pair: len(name) + int(pair.product_id[1]) - 3)
    assert all(len(own) == len(set(own)) for own in shown.values())
    times = [sum(pair in own for own in shown.values()) for pair in PAIRS]
    assert set(times) == {1, 2} and 0.15 < times.count(2) / len(PAIRS) < 0.35
    state = judging.progress("Ann")
    assert state["graded"] == state["pool"] == len(PAIRS) and state["twice"] == times.count(2)
    assert state["alpha"] == 1.0, "these judges always agree"
    assert shown["Ann"][0] == PAIRS[0] and shown["Ann"] == sorted(shown["Ann"], key=PAIRS.index)


def test_what_was_said_is_read_again_to_the_last_whole_line(tmp_path):
    path = tmp_path / "judgments.jsonl"
    ledger = Ledger(path)
    for n, grade in enumerate((4, None, 0)):
        ledger.add("Ann", PAIRS[n], grade)
    ledger.add("Ann", PAIRS[0], 2)
    ledger.add('B"en\n\u202e', PAIRS[0], 3)
    assert ledger.undo("Ann") == PAIRS[0] and ledger.undo("Cem") is None
    ledger.close()
    whole = path.read_bytes()
    expected = {"Ann": {PAIRS[1]: None, PAIRS[2]: 0}, 'B"en\n\u202e': {PAIRS[0]: 3}}
    assert Ledger(path).of == expected and path.read_bytes() == whole
    path.write_bytes(whole + b'{"judge": "Ann", "task": "ta')
    again = Ledger(path)
    again.add("Ann", PAIRS[5], 1)
    again.close()
    assert Ledger(path).of == {**expected, "Ann": {**expected["Ann"], PAIRS[5]: 1}}
    path.write_bytes(b"{}\n" + whole)
    with pytest.raises(ValueError, match="line 1: not a judgment"):
        Ledger(path)


def test_the_export_is_the_median_over_judges(tmp_path):
    judging = Judging(PAIRS[:3], Ledger(tmp_path / "judgments.jsonl"), twice=1)
    for name, grades in (("Ann", (4, 1, None)), ("Ben", (3, 2, None)), ("Cem", (0, None, None))):
        for pair, grade in zip(PAIRS, grades, strict=False):
            judging.say(name, pair, grade)
    lines = read_judgments(judging.export(tmp_path / "qrels.csv")).lines
    assert [(line.product, line.value) for line in lines] == [("p0", 3), ("p1", 1)]


@pytest.fixture
def served(tasks, models, tmp_path):
    """The pool of the shop on a real server; the folder is what a restart would find."""
    pools = [
        pooled([results[task.name.removesuffix(".test")].row for results in models.values()], task.judgments,
               documents=len(task.corpus), depth=5) for task in tasks
    ]  # fmt: skip
    places = [Place(tasks[which], query, document) for which, query, document in in_order(pools)]
    pairs = [Pair(p.task.name, p.task.queries.ids[p.query], p.task.corpus.ids[p.document]) for p in places]
    judging = Judging(pairs, Ledger(tmp_path / "judgments.jsonl"), twice=1)
    with answering(build_app(judging, places, name="shop", export=tmp_path / "qrels.csv")) as address:
        yield address, judging, tmp_path
    assert (tmp_path / "qrels.csv").is_file(), "written when the server ends"


def call(address, path, body=None, **headers):
    """(status, JSON) of a request."""
    data = None if body is None else json.dumps(body).encode()
    headers = {name.replace("_", "-"): value for name, value in {"content_type": "application/json", **headers}.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(address + path, data, headers), timeout=900) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_only_its_own_page_is_answered_and_only_what_can_be_meant_is_kept(served):
    address, judging, folder = served
    _, state = call(address, "api/next?judge=Ann")
    good = {"judge": "Ann", "pair": state["pair"]["key"], "grade": 3}
    assert call(address, "api/judge", good, origin="http://evil.example")[0] == 403
    assert call(address, "api/judge", good, host="evil.example")[0] == 421
    assert call(address, "api/judge", {**good, "judge": "x" * 30_000})[0] == 413
    wrong = [{"grade": 5}, {"grade": -1}, {"grade": 1.5}, {"grade": "many"}, {"judge": " "}, {"judge": "x" * 61},
             {"pair": ["a", "b"]}, {"judge": None}]  # fmt: skip
    for change in wrong:
        status, answer = call(address, "api/judge", {**good, **change})
        assert status == 422 and answer["detail"], change
    assert call(address, "api/judge", {**good, "pair": ["a", "b", "c"]})[0] == 404
    assert call(address, "pictures/document/-1")[0] == call(address, "pictures/other/0")[0] == 404
    assert call(address, "static/../judge_app.py")[0] == 404
    assert judging.progress("Ann")["judges"] == {} and not (folder / "judgments.jsonl").read_bytes()
    assert call(address, "api/judge", good)[1]["progress"]["mine"] == 1


def test_nobody_sees_a_model_or_what_others_said(served):
    address, _, _ = served
    _, state = call(address, "api/next?judge=Ann")
    call(address, "api/judge", {"judge": "Ann", "pair": state["pair"]["key"], "grade": 4})
    _, other = call(address, "api/next?judge=Ben")
    assert other["pair"]["key"] == state["pair"]["key"], "every pair is wanted twice here"
    assert other["pair"] == state["pair"] and not {"base", "tuned"} & set(json.dumps(other).split('"'))


def test_two_judges_grade_with_keys_and_buttons_undo_and_download(served, open_page, screenshots):
    address, judging, folder = served
    pages = {name: open_page(address, allowed=address, width=width, dark=width < 500)
             for name, width in (("Ann", 1280), ("Ben", 390))}  # fmt: skip
    for name, page in pages.items():
        page.get_by_label("Your name").fill(name)
        page.get_by_role("button", name="Begin").click()
        page.locator("#pair").wait_for()
        for key, word in (
            ("4", "Graded 4"),
            ("0", "Graded 0"),
            ("s", "Skipped"),
            ("2", "Graded 2"),
            ("u", "Taken back"),
        ):
            page.keyboard.press(key)
            page.get_by_role("status").filter(has_text=word).wait_for()
        page.get_by_role("button", name="1 hardly relevant").click()
        page.get_by_role("status").filter(has_text="Graded 1").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
        assert page.evaluate("document.activeElement.id") == "pair", "keys go on to work"
        assert axe_findings(page) == []
        page.screenshot(path=screenshots / f"judge-{name}.png", full_page=True)
    said = {name: list(own.values()) for name, own in judging.ledger.of.items()}
    assert said == {"Ann": [4, 0, None, 1], "Ben": [4, 0, None, 1]}
    ann = pages["Ann"]
    ann.reload()
    ann.locator("#pair").wait_for()
    assert "3 by you, 2 judges, agreement 1.00 on 3 graded by several" in ann.locator("#progress").inner_text()
    with ann.expect_download() as download:
        ann.get_by_role("link", name="Download qrels.csv").click()
    graded = read_judgments(download.value.path() if download.value.path().suffix else folder / "qrels.csv")
    assert sorted(line.value for line in graded.lines) == [0, 1, 4]
    ann.get_by_role("button", name="I am not Ann").click()
    ann.get_by_label("Your name").wait_for()
    ann.keyboard.press("4")
    assert judging.progress("Ann")["mine"] == 3, "a name may hold digits"


def test_an_attack_in_a_catalog_is_text(served, open_page):
    address, judging, _ = served
    number = next(n for n, pair in enumerate(judging.pairs) if pair.product_id == "p0")
    judging._held["Eve"] = judging.pairs[number]
    page = open_page(address, allowed=address)
    page.get_by_label("Your name").fill("Eve")
    page.keyboard.press("Enter")
    page.locator("#pair").wait_for()
    assert page.locator("#title").text_content() == ATTACK and page.evaluate("window.hacked") is None


def test_names_that_are_hostile_harm_nobody(served):
    address, judging, folder = served
    for name in ('"}\n{"', "<img src=x onerror=1>", "=cmd|calc", "\ud800x"):
        _, state = call(address, "api/next?judge=Ann")
        status, _ = call(address, "api/judge", {"judge": name, "pair": state["pair"]["key"], "grade": 1})
        assert status in (200, 422)
    assert len(Ledger(folder / "judgments.jsonl").of) == len(judging.ledger.of) >= 3
