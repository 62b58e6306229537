"""What people get wrong, planted in a small shop: the doctor finds it, names the rows or words, and says what to do."""

import json
import random

import numpy as np
import pytest
from PIL import Image

from gcl.cli import main
from helpers.small_catalog import write_table

pytestmark = pytest.mark.filterwarnings("ignore")
COLOURS = ("red", "green", "blue", "black", "white", "yellow")
THINGS = ("hoodie", "boots", "lamp", "mug", "jacket")
PRODUCTS = 120


def picture(seed: int, size=(64, 56)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def plain_shop(folder) -> tuple[list[dict], list[dict]]:
    """Products, and pairs of which the better ones share more words with their query."""
    chance, products, pairs = random.Random(0), [], []
    (folder / "images").mkdir(parents=True)
    for number in range(PRODUCTS):
        colour, thing = COLOURS[number % 6], THINGS[number // 6 % 5]
        picture(number).save(folder / "images" / f"{number}.jpg")
        products.append({
            "product_id": f"p{number}", "title": f"Acme {colour} {thing} {number}", "image": f"images/{number}.jpg",
            "description": f"This is the {thing} number {number} for people who like {colour}",
        })  # fmt: skip
    for query in range(60):
        colour, thing = COLOURS[query % 6], THINGS[query // 6 % 5]
        text = f"{colour} {thing} {['cheap', 'best'][query // 30]}"
        fitting = chance.sample([row for row in products if colour in row["title"] and thing in row["title"]], 2)
        near = chance.sample([row for row in products if (colour in row["title"]) != (thing in row["title"])], 3)
        for row, score in [*((row, 4) for row in fitting), *((row, chance.choice((1, 2))) for row in near)]:
            pairs.append({"query": text, "product_id": row["product_id"], "score": score})
    chance.shuffle(pairs)
    return products, pairs


def doctor(folder, products, pairs, *words, more=""):
    """(exit status, facts, the page as HTML) of a shop of these rows."""
    write_table(folder / "products.csv", products)
    if pairs:
        write_table(folder / "pairs.csv", pairs)
    conf = folder / "conf" / "data"
    conf.mkdir(parents=True, exist_ok=True)
    tables = "pairs: pairs.csv\nscore: score\n" if pairs else ""
    (conf / "plants.yaml").write_text(
        f"name: plants\nroot: {folder}\nproducts: products.csv\n{more}{tables}query:\n  query: {{modality: text}}\n"
        "document:\n  image: {modality: image}\n  title: {modality: text}\n  description: {modality: text}\n"
    )
    where = ["--config-dir", str(folder / "conf"), f"cache_dir={folder / 'out'}", f"out={folder / 'doctor'}"]
    status = 0
    try:
        main(["doctor", *where, "data=plants", "model=tiny", "trainer=cpu", "train.batch_size=16", *words])
    except SystemExit as ended:
        status = ended.code
    out = folder / "doctor"
    return status, json.loads((out / "doctor.json").read_text()), (out / "doctor.html").read_text()


def said(facts, words: str) -> dict:
    """The one finding with these words."""
    found = [finding for finding in facts["findings"] if words in finding["text"]]
    assert len(found) == 1, [finding["text"] for finding in facts["findings"]]
    return found[0]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    return doctor(folder, *plain_shop(folder))


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Everything at once that does not hide another plant."""
    folder = tmp_path_factory.mktemp("planted")
    products, pairs = plain_shop(folder)
    for pair in pairs:  # 1 = best
        pair["score"] = 5 - pair["score"]
    for row in products[:20]:  # one picture for twenty products
        row["image"] = "images/none.jpg"
    picture(999).save(folder / "images" / "none.jpg")
    picture(1, (3, 3)).save(folder / "images" / "30.png")
    products[30]["image"] = "images/30.png"
    (folder / "images" / "31.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    for row in products[40:52]:
        row["title"] = "Kein Bild" if row is products[40] else "TBD"
    for row in products[52:70]:
        row["description"] = f"<p>Warm &amp; <b>dry</b> {row['product_id']}</p>"
    for row in products[70:90]:
        row["description"] = f"Größe 42 fÃ¼r Herren {row['product_id']}"
    for row in products[90:]:
        row["title"] = " ".join(f"{row['title']} word{n}" for n in range(20))
    products += [row | {"product_id": f"{row['product_id']}-again"} for row in products[60:80]]
    pairs += [{**pair, "query": f" {pair['query'].upper()}"} for pair in pairs[::3]]
    pairs += [
        {**pair, "product_id": f"{pair['product_id']}-again"}
        for pair in pairs
        if 60 <= int(pair["product_id"][1:]) < 80
    ]
    return doctor(folder, products, pairs, "data.split.copies=apart", "data.max_bad=0.05")


def test_a_sound_shop_has_no_finding(sound):
    status, facts, _ = sound
    assert status == 0 and facts["findings"] == []
    assert facts["direction"][""]["text"]["low"] > 0


def test_scores_that_are_turned_round_are_a_problem(planted):
    found = said(planted[1], "turned round")
    assert planted[0] == 1 and found["level"] == "problem" and 'data.grades: {"1": 4, "3": 2, "4": 1}' in found["do"]
    assert any("->" in example for example in found["examples"])


def test_what_the_doctor_says_turns_the_scores(tmp_path):
    products, pairs = plain_shop(tmp_path)
    turned = [pair | {"score": 5 - pair["score"]} for pair in pairs]
    _, facts, _ = doctor(tmp_path, products, turned)
    grades = said(facts, "turned round")["do"].partition("data.")[2].partition(" in the YAML")[0]
    status, facts, _ = doctor(tmp_path, products, turned, more=f"{grades}\n")
    assert status == 0 and facts["findings"] == [] and facts["scores"]["quantiles"]["most"] == 4


def test_constant_scores(tmp_path):
    products, pairs = plain_shop(tmp_path)
    pairs = [pair | {"score": 3} for pair in pairs]
    status, facts, _ = doctor(tmp_path, products, pairs)
    assert status == 0 and said(facts, "have the score 3")["do"] == "loss=constant"
    assert doctor(tmp_path, products, pairs, "loss=constant")[1]["findings"] == []


def test_placeholders_tiny_and_unreadable_pictures(planted):
    _, facts, page = planted
    assert "20 products with different titles have one image" in said(facts, "placeholder")["text"]
    assert said(facts, "pixels on a side")["examples"] == ["p30 Acme red hoodie 30"]
    assert "p31" in page and "unreadable image" in page


def test_words_for_missing_html_and_broken_letters(planted):
    missing = said(planted[1], "document.title: 12 of")
    assert '"TBD"' in missing["do"] and '"TBD": 11' in missing["examples"] and "data.missing" in missing["do"]
    assert said(planted[1], "HTML")["do"] == "data.document.description.text=html"
    assert "data.encoding" in said(planted[1], "broken letters")["do"]


def test_ids_in_place_of_queries(tmp_path):
    products, pairs = plain_shop(tmp_path)
    number = {query: str(1000 + place) for place, query in enumerate({pair["query"]: None for pair in pairs})}
    _, facts, _ = doctor(tmp_path, products, [pair | {"query": number[pair["query"]]} for pair in pairs])
    finding = said(facts, "query.query: 60 of 60 texts have no letter, as ids of queries have none")
    assert "data.query.query.column" in finding["do"] and "1000" in finding["examples"]


def test_titles_are_shown_as_the_model_cuts_them(planted):
    assert "~data.document.title" in said(planted[1], "document.title: of its texts")["do"]
    cut = planted[1]["tokens"]["document.title"]["cut"]
    assert len(cut) == 5 and all("word0" in kept and "word" in lost for kept, lost in cut)


def test_copies_and_repeated_queries_are_named_in_words(planted):
    products = [finding for finding in planted[1]["findings"] if "held-out products" in finding["text"]]
    assert products and all("data.split.copies=together" in finding["do"] for finding in products)
    queries = said(planted[1], "queries differ from another in case or white space only")
    for example in queries["examples"]:
        assert set(example.lower().replace('"', "").split()) & set(THINGS) and " = " in example, "words, not hashes"


def test_another_language_than_the_model_s(tmp_path):
    products, pairs = plain_shop(tmp_path)
    for row in products:
        row["description"] = f"Jacke Nr. {row['product_id']} für Damen mit Kapuze und Taschen von der Marke"
    _, facts, _ = doctor(tmp_path, products, pairs)
    found = said(facts, "German")
    assert "document.description" in found["text"] and found["do"].startswith("model=siglip2")


def test_a_catalog_that_is_only_measured_gets_advice_that_fits(tmp_path):
    products, _ = plain_shop(tmp_path)
    write_table(
        tmp_path / "queries.csv", [{"query_id": n, "query": f"{COLOURS[n % 6]} {THINGS[n % 5]}"} for n in range(12)]
    )
    write_table(tmp_path / "qrels.csv", [{"query_id": n % 12, "product_id": f"p{n}", "score": 1} for n in range(60)])
    tables = f"queries: {tmp_path / 'queries.csv'}, qrels: {tmp_path / 'qrels.csv'}"
    words = ["data.training=false", f"data.tasks={{mine: {{{tables}}}}}"]
    status, facts, page = doctor(tmp_path, products, [], *words)
    assert status == 0 and facts["findings"] == [] and "ready for measuring" in page
    assert "batches" not in facts and "batch_size" not in page


def test_the_page_says_hostile_texts_and_loads_nothing(tmp_path):
    products, pairs = plain_shop(tmp_path)
    for row in products:
        row["title"] = f"<script>alert({row['product_id']})</script><img src=x onerror=alert(1)>"
    _, _, page = doctor(tmp_path, products, pairs)
    assert "<script>alert(" not in page and "<img src=x" not in page and "&lt;script&gt;alert(" in page
    assert "http://" not in page and "https://" not in page and "default-src &#x27;none&#x27;" in page


@pytest.mark.parametrize("width", [390, 900, 1440])
def test_the_page_reads_on_every_screen(planted, chromium, width, tmp_path):
    (tmp_path / "doctor.html").write_text(planted[2], encoding="utf-8")
    context = chromium.new_context(
        viewport={"width": width, "height": 900}, java_script_enabled=width != 900, color_scheme="dark"
    )
    page = context.new_page()
    requests, errors = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(error))
    page.goto((tmp_path / "doctor.html").as_uri())
    assert page.locator("h1").inner_text() == "gcl doctor: plants" and "to fix" in page.inner_text("main")
    assert page.locator(".findings > li").count() == len(planted[1]["findings"])
    assert page.locator(".findings .do").count() > 5 and page.locator(".bars rect").count() == 3
    assert page.locator(".card img").count() >= 6, "pairs, copies and placeholders are shown"
    if width != 900:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.evaluate("Promise.all([...document.images].map((image) => image.decode()))")
    page.keyboard.press("Tab")
    assert page.locator(":focus").inner_text() == "Skip to the findings"
    assert [url for url in requests if not url.startswith(("data:", "file:"))] == [] and errors == []
    context.close()


def test_a_fault_of_all_rows_is_no_fault_to_go_on_with(tmp_path):
    products, pairs = plain_shop(tmp_path)
    for pair in pairs:
        pair["product_id"] = f"#{pair['product_id'].upper()}!"
    status, facts, _ = doctor(tmp_path, products, pairs)
    assert status == 1 and said(facts, "cannot be used (100.0%")["do"] == "fix the rows"
