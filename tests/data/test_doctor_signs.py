"""Signs that scores are turned round, and languages: found where they are, and nowhere else."""

import numpy as np
import pytest

from gcl.commands.doctor.findings import judge
from gcl.data.doctor.languages import languages_of
from gcl.data.doctor.samples import distribution
from gcl.data.doctor.scores import all_pairs, direction
from gcl.data.store.prepared import Pairs
from helpers.small_catalog import catalog, prepared, text, write_table

WORDS = "red green blue black white warm light long short wool cotton linen sport winter summer kids".split()
QUERIES, EACH = 80, 6


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Queries of three words; of the six products of each, the first have more of them."""
    folder = tmp_path_factory.mktemp("signs")
    random = np.random.default_rng(0)
    products, pairs = [], []
    for query in range(QUERIES):
        asked = random.choice(WORDS, 3, replace=False)
        others = [word for word in WORDS if word not in asked]
        for place in range(EACH):
            shared = int(np.clip(3 - place // 2 + random.integers(-1, 2), 0, 3))
            title = " ".join([*asked[:shared], *random.choice(others, 3), str(len(products))])
            products.append({"product_id": len(products), "title": title})
            pairs.append({"query": f"{' '.join(asked)} {query}", "product_id": len(pairs), "score": EACH - place})
    write_table(folder / "products.csv", products)
    write_table(folder / "pairs.csv", pairs)
    given = catalog(folder, products="products.csv", pairs="pairs.csv", score="score", document={"title": text()})
    return prepared(given, folder / "out")


def findings(shop, score, order=None):
    """What is found where the pairs have these scores, and are listed in this order."""
    pairs = all_pairs(shop)
    pairs = Pairs(pairs.query, pairs.document, np.asarray(score(pairs), np.float32))
    order = np.arange(len(pairs)) if order is None else order
    ordered = Pairs(pairs.query[order], pairs.document[order], pairs.score[order])
    signs = direction(shop, pairs, ordered=ordered)
    return judge({"direction": {"": signs}, "scores": distribution(pairs.score)})


def position(pairs):
    """Which of its query's products each pair has, from 1: the fixture's products are numbered as they are listed."""
    return pairs.document % EACH + 1


def test_scores_the_right_way_round_are_no_finding(shop):
    assert findings(shop, lambda pairs: EACH + 1 - position(pairs)) == []


def test_ranks_are_a_problem_whatever_their_form(shop):
    for score in (position, lambda pairs: 10 * position(pairs), lambda pairs: np.ceil(position(pairs) / 2)):
        (found,) = findings(shop, score)
        assert found.level == "problem" and "share more words" in found.text and found.do


@pytest.mark.parametrize("seed", range(30))
def test_noise_is_no_finding(shop, seed):
    random = np.random.default_rng(seed)
    order = random.permutation(QUERIES * EACH)
    assert findings(shop, lambda pairs: random.integers(1, 5, len(pairs)), order) == []
    few = np.arange(14 * EACH)  # hardly enough queries to say anything
    signs = direction(shop, Pairs(*(getattr(all_pairs(shop), name)[few] for name in ("query", "document", "score"))))
    noise = Pairs(all_pairs(shop).query[few], all_pairs(shop).document[few], random.random(len(few)))
    assert signs["text"]["mean"] > 0 and judge({"direction": {"": direction(shop, noise)}, "scores": {}}) == []


def test_lists_without_texts_are_told_by_their_numbers(shop):
    """Where texts say nothing: 1, 2, … to a number that differs by query is a rank; the lowest first is a hint."""
    pairs = all_pairs(shop)
    shuffled = Pairs(pairs.query, np.random.default_rng(3).permutation(pairs.document), pairs.score)
    place = np.arange(len(pairs)) % EACH
    keep = place < 3 + shuffled.query % 3
    ranks = Pairs(shuffled.query[keep], shuffled.document[keep], (place[keep] + 1).astype(np.float32))
    signs = direction(shop, ranks, ordered=ranks)
    assert signs["ranks"]["lengths"] == 3 and signs["order"]["mean"] == -1
    (found,) = judge({"direction": {"": signs}, "scores": {}})
    assert found.level == "problem" and "1, 2, 3" in found.text
    grades = Pairs(ranks.query, ranks.document, np.ceil(ranks.score / 2) * 10)
    (hint,) = judge({"direction": {"": direction(shop, grades, ordered=grades)}, "scores": {}})
    assert hint.level == "warning" and "lowest scores first" in hint.text


TEXTS = {
    "English": [
        "Shoes for men",
        "the warm jacket with a hood",
        "Set of two mugs",
        "a lamp for your desk",
        "black and white",
    ],
    "German": ["Schuhe für Herren", "Jacke mit Kapuze", "die Lampe und der Tisch", "Tasse aus Ton", "für den Garten"],
    "French": ["Chaussures pour femme", "veste avec capuche", "lampe de bureau et chaise", "sans manches pour homme"],
    "Spanish": ["Zapatos para mujer", "chaqueta con capucha y bolsillos", "lámpara para niños", "sin mangas"],
    "Polish": ["Buty męskie", "kurtka dla dzieci", "koszulka damska biała", "żółta lampka", "który jest czarny"],
    "a language in Cyrillic": ["Зимние ботинки", "Куртка мужская Nike"],
    "Japanese": ["メンズ 靴", "コットンのシャツ 白"],
    "Chinese": ["男士 冬季 外套", "白色 衬衫"],
}


@pytest.mark.parametrize("language", TEXTS)
def test_languages_are_told(language):
    assert next(iter(languages_of(TEXTS[language]))) == language


def test_brands_and_model_numbers_are_no_language():
    assert (
        languages_of(["Nike Air Max 90", "Canon EOS 5D Mark IV", "La Sportiva TX4", "Der Kaiser X1", "El Matador"])
        == {}
    )
