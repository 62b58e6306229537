"""From facts to findings: what has to be fixed before training, and what is worth a look.

Every threshold is here, or imported. A share above its threshold is a finding; a problem makes the exit status 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from gcl.data.catalog import OwnField
from gcl.data.doctor.images import TINY
from gcl.data.store.prepared import SITUATIONS
from gcl.data.titles import title_of
from gcl.retrieval.tasks.audit import WORD_FOR_WORD

# Problems.
LEAKED = 0.01  # held-out queries or products that are also in training, equal in every field or with the same image
DANGLING = 0.10  # judgments of a task for products that are not in the catalog
REVERSED = -0.2  # gamma of scores and texts (gcl/data/doctor/scores.py); its interval has to lie below half of it, too
RANKED = 0.9  # queries whose scores are 1, 2, 3, … to the number of their products
# Warnings.
ASCENDING = -0.8  # gamma of scores and the order of the table
UNREACHABLE = 0.10  # queries of a task that have no relevant product in its corpus
LEAKED_IN_PART = 0.05  # as above, with one equal text or with an image that only looks alike
TRUNCATED = 0.05  # texts longer than the model's context
REPEATED = 0.05  # products that occur twice
SAME_QUERIES = 0.01  # queries that differ from another in case or white space only
CROWDED = 0.25  # places of a batch whose query (or product) occurs earlier in it
RARE = 0.01  # a field that a smaller share of the records has
HTML = 0.01  # texts with tags or entities
DECODED_TWICE = 0.001  # texts with letters such as "Ã¼"
WITHOUT_LETTERS = 0.5  # queries that are numbers alone
LOOKS_MISSING = 0.005  # texts that are a word for "no value", or MANY_MISSING of them
MANY_MISSING = 5
PLACEHOLDER = 5  # products with different titles and one image
UNREAD_LANGUAGE = 0.10  # texts in a language that the model was not trained on, of those whose language can be told
UNEVEN = 0.10  # pairs that the weights are worth, of the pairs there are
COUNTS = (
    "What counts as a problem: the catalog, its scores or the batch size cannot be used; scores seem to be turned "
    f"round; more than {LEAKED:.0%} of the held-out products or queries are also in training (equal in every field, or "
    f"with the same image); more than {DANGLING:.0%} of a task's judgments are of products not in the catalog; a "
    "stored image cannot be read."
)

_DUPLICATES = re.compile(r"data\.duplicates\.\w+")

Level = Literal["problem", "warning"]


class Finding(NamedTuple):
    """One sentence of the doctor with what it is about and what to do; problems make the exit status 1."""

    level: Level
    text: str
    do: str = ""
    examples: tuple[str, ...] = ()


def judge(facts: dict[str, Any]) -> list[Finding]:
    """The findings on the doctor's facts, problems first."""
    parts = (_refusals, _pairs, _scores, _leaks, _texts, _images, _copies, _queries, _tasks, _weights, _batches)
    findings = [finding for part in parts for finding in part(facts)]
    return sorted(findings, key=lambda finding: finding.level != "problem")


def words(record: Mapping[str, Any]) -> str:
    """A record in words: its title, after its id if it has one."""
    if record["id"] is None:
        return f'"{record["title"]}"' if record["title"] else "an image"
    return f"{record['id']} {record['title']}".rstrip()


def task_title(name: str, facts: Mapping[str, Any]) -> str:
    """A task in words. facts: the doctor's."""
    return title_of(name, facts.get("titles"))


def _all_words(records: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(map(words, records))


def _refusals(facts: dict[str, Any]) -> Iterator[Finding]:
    for sentence, do in facts.get("catalog", {}).get("refused", ()):
        yield Finding("problem", sentence, do)
    for part in ("weights", "batches"):
        if refused := facts.get(part, {}).get("refused"):
            yield Finding("problem", refused, facts[part].get("do", ""))


def _pairs(facts: dict[str, Any]) -> Iterator[Finding]:
    counts, refused = facts.get("counts", {}), facts.get("catalog", {}).get("refused")
    for note in () if refused else counts.get("notes", ()):
        if setting := _DUPLICATES.search(note):
            do = f"nothing if that is right; else another {setting[0]}, or leave one row of each"
            yield Finding("warning", f"{note[:1].upper()}{note[1:]}.", do)
    held = {"pairs": counts.get("word_for_word", {})}
    for name, task in facts.get("tasks", {}).items():
        if name not in SITUATIONS:  # which are made of the pairs
            held[f"judgments of {task_title(name, facts)}"] = task.get("word_for_word", {})
    for of, fields in held.items():
        for name, (count, looked_at) in fields.items():
            if count > WORD_FOR_WORD * looked_at:
                what = f"the query stands word for word in document.{name}, so copying is enough to find it"
                do = "nothing if people search with these words; else measure with other queries (data.tasks)"
                if counts.get("own_pairs"):
                    hidden = facts.get("own_field") == OwnField.hidden
                    do = f"'~data.document.{name}', or queries that people wrote (data.pairs)"
                    do = do if hidden else "data.own_field=hidden"
                yield Finding("warning", f"In {count:,} of {looked_at:,} {of} {what}.", do)


def _scores(facts: dict[str, Any]) -> Iterator[Finding]:
    for name, signs in facts.get("direction", {}).items():
        if reason := _turned_round(signs):
            level, why = reason
            of = f"The relevance of {task_title(name, facts)}" if name else "The score"
            where = f"data.tasks.{name}.grades" if name else "data.grades"
            lowest = facts.get("examples", {}).get("lowest", ())[:2] if not name else ()
            yield Finding(
                level, f"{of} seems to be turned round (1 = best): {why}. The higher a score, the better the pair.",
                _turn_round(where, facts["scores"] if not name else {}),
                tuple(f"{words(pair['query'])} -> {words(pair['document'])}: {pair['score']:g}" for pair in lowest),
            )  # fmt: skip
    scores = facts.get("scores", {})
    if scores.get("distinct") == 1 and facts.get("score_column") and facts["weights"].get("function") != "constant":
        same = f"All {scores['count']:,} training pairs have the score {scores['quantiles']['most']:g}"
        yield Finding("warning", f"{same}, so GCL has nothing to weigh: plain contrastive training is the same.",
                      "loss=constant")  # fmt: skip


def _turned_round(signs: Mapping[str, Any]) -> tuple[Level, str] | None:
    text, order, ranks = signs.get("text"), signs.get("order"), signs.get("ranks") or {"queries": 0}
    if text and text["mean"] <= REVERSED and text["high"] < REVERSED / 2:
        about = f"agreement {text['mean']:.2f} of -1 to 1, with 99% certainty below {text['high']:.2f}"
        more = f"in {text['queries']:,} queries the products with the lower scores share more words with the query"
        return "problem", f"{more} ({about})"
    if text and text["low"] > 0:
        return None
    if ranks["queries"] >= 12 and ranks["ranked"] >= RANKED * ranks["queries"]:
        of = f"in {ranks['ranked']:,} of {ranks['queries']:,} queries"
        why = f"{of} the scores are 1, 2, 3, … to the number of products, as places in a list are"
        return "problem" if ranks["lengths"] > 1 else "warning", why
    if order and order["mean"] <= ASCENDING:
        return "warning", f"in {order['queries']:,} queries the table lists the products with the lowest scores first"
    return None


def _turn_round(where: str, scores: Mapping[str, Any]) -> str:
    values = [value for value, _ in scores.get("histogram", ())]
    if 1 < len(values) <= 10 and scores["distinct"] == len(values):
        ends = scores["quantiles"]["least"] + scores["quantiles"]["most"]
        turned = ", ".join(f'"{value}": {ends - float(value):g}' for value in values)
        return f"look at these pairs; if they are good ones, write {where}: {{{turned}}} in the YAML"
    return f"if the lowest are the best, write highest + lowest - score into the column, or the grades into {where}"


def _leaks(facts: dict[str, Any]) -> Iterator[Finding]:
    for side, leak in facts.get("leakage", {}).items():
        together = facts.get("split", {}).get("copies") == "together"
        things, do = {
            "query": ("held-out queries", "write each query in one way (case, spaces)"),
            "document": ("held-out products", "data.split.group=[<column that variants share>]" if together
                         else "data.split.copies=together"),
        }[side]  # fmt: skip
        whole = {"equal one in training in every field": leak["equal_in_every_field"]}
        same, near = "have the same {} as one in training", "have an image that looks like one in training ({})"
        whole |= {same.format(f"{side}.{name}"): leaked for name, leaked in leak["equal_image"].items()}
        part = {same.format(f"{side}.{name}"): leaked for name, leaked in leak["equal_text"].items()}
        part |= {near.format(f"{side}.{name}"): leaked for name, leaked in leak["near_image"].items()}
        part = {} if side == "query" and len(part) == 1 else part  # of one field: the same fact twice
        levels: tuple[tuple[Level, float, dict[str, Any]], ...] = (
            ("problem", LEAKED, whole), ("warning", LEAKED_IN_PART, part),
        )  # fmt: skip
        for level, limit, kinds in levels:
            for how, leaked in kinds.items():
                if leaked["of"] and leaked["rows"] > limit * leaked["of"]:
                    share = f"{leaked['rows']:,} of {leaked['of']:,} {things} ({leaked['rows'] / leaked['of']:.1%})"
                    yield Finding(level, f"{share} {how}.", do, _all_words(leaked["examples"]))


def _texts(facts: dict[str, Any]) -> Iterator[Finding]:
    for name, field in facts.get("fields", {}).items():
        if field["share"] < RARE:
            do = f"check data.{name}.column, or leave the field out: '~data.{name}'"
            yield Finding("warning", f"{name}: {field['present']:,} of {field['rows']:,} records have a value.", do)
    for name, field in facts.get("texts", {}).items():
        yield from _exported(name, field)
        yield from _language(name, field, facts)
    for name, field in facts.get("tokens", {}).items():
        if field["share_over"] > TRUNCATED:
            cut = f"{field['share_over']:.1%} are cut at the {field['context_length']} tokens that the model reads"
            do = f"put what matters first in the column, or leave the field out: '~data.{name}'"
            examples = tuple(f"… {kept[-50:]} | {lost}" for kept, lost in field["cut"][:2])
            yield Finding("warning", f"{name}: of its texts, {cut}, and nothing of the rest counts.", do, examples)


def _exported(name: str, field: Mapping[str, Any]) -> Iterator[Finding]:
    missing = field["looks_missing"]
    count = sum(number for _, number in missing)
    if count >= MANY_MISSING or count > LOOKS_MISSING * max(field["looked_at"], 1) > 0:
        said = tuple(f'"{word}": {number:,}' for word, number in missing[:5])
        listed = ", ".join(f'"{word}"' for word, _ in missing)
        share = f"{count:,} of {field['looked_at']:,} texts"
        yield Finding("warning", f"{name}: {share} seem to say that there is no value.",
                      f"add to data.missing: {listed}", said)  # fmt: skip
    if (html := field["html"])["count"] > HTML * field["looked_at"]:
        share = f"{html['count']:,} of {field['looked_at']:,} texts"
        yield Finding("warning", f"{name}: {share} have HTML tags or entities.", f"data.{name}.text=html",
                      tuple(html["examples"]))  # fmt: skip
    bare = field["without_letters"]
    if name.startswith("query.") and bare["count"] > WITHOUT_LETTERS * field["looked_at"]:
        share = f"{bare['count']:,} of {field['looked_at']:,} texts"
        yield Finding("warning", f"{name}: {share} have no letter, as ids of queries have none.",
                      f"nothing if people search by numbers; else name the column of the words: data.{name}.column",
                      tuple(bare["examples"]))  # fmt: skip
    if (twice := field["decoded_twice"])["count"] > DECODED_TWICE * field["looked_at"]:
        share = f"{twice['count']:,} of {field['looked_at']:,} texts"
        yield Finding("warning", f"{name}: {share} have broken letters: they were decoded by the wrong encoding.",
                      "export the table again as UTF-8 with data.encoding=null, or name its true encoding, for example "
                      "data.encoding=cp1252", tuple(twice["examples"]))  # fmt: skip


def _language(name: str, field: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[Finding]:
    told = sum(field["languages"].values())
    others = {language: count for language, count in field["languages"].items() if language != "English"}
    if facts.get("model", {}).get("multilingual") is not False or not told:
        return
    share = sum(others.values()) / told
    if share > UNREAD_LANGUAGE and sum(others.values()) > RARE * field["looked_at"]:
        which = ", ".join(f"{language} {count:,}" for language, count in list(others.items())[:3])
        said = f"{share:.0%} of the texts whose language can be told are not English ({which})"
        model = facts["model"]["label"]
        yield Finding("warning", f"{name}: {said}, and {model} was trained on English.", "model=siglip2-B")


def _images(facts: dict[str, Any]) -> Iterator[Finding]:
    for name, bad in facts.get("bad_images", {}).items():
        why = ", ".join(f"{reason} {count:,}" for reason, count in bad["reasons"].items())
        share = f"{bad['absent']:,} of {bad['given']:,}"
        yield Finding("warning", f"{name}: {share} records go on without their image ({why}).",
                      "fix the images, or leave such products out: data.bad_images=drop",
                      tuple(": ".join(example) for example in bad["examples"][:5]))  # fmt: skip
    for name, images in facts.get("images", {}).items():
        kinds: tuple[tuple[Level, str, str, str], ...] = (
            ("problem", "unreadable", "stored images cannot be read",
             "delete the prepared folder and prepare the catalog again"),
            ("warning", "tiny", f"images have less than {TINY} pixels on a side, too few to show anything",
             "replace them, or empty these cells: a product goes on without the image"),
        )  # fmt: skip
        for level, kind, what, do in kinds:
            if (some := images[kind])["rows"]:
                share = f"{some['rows']:,} of {images['looked_at']:,}"
                yield Finding(level, f"{name}: {share} {what}.", do, _all_words(some["examples"]))
    for name, copied in facts.get("duplicates", {}).get("equal_image", {}).items():
        for group, size in zip(copied["examples"], copied["sizes"], strict=True):
            if size >= PLACEHOLDER and len({product["title"] for product in group}) == len(group):
                what = f"document.{name}: {size:,} products with different titles have one image, which looks like a"
                do = "empty these cells: a product goes on without the image"
                yield Finding("warning", f"{what} placeholder.", do, _all_words(group))


def _copies(facts: dict[str, Any]) -> Iterator[Finding]:
    copies = facts.get("duplicates")
    if not copies:
        return
    kinds = {"are equal to another in every field": copies["equal_in_every_field"]}
    kinds |= {f"have the same {name} as another": copied for name, copied in copies["equal_image"].items()}
    for kind, copied in kinds.items():
        if copied["rows"] > REPEATED * copies["products"]:
            do = "nothing if these are variants; data.split.copies=together keeps them on one side of the split"
            examples = tuple(" = ".join(_all_words(group[:3])) for group in copied["examples"])
            yield Finding("warning", f"{copied['rows']:,} of {copies['products']:,} products {kind}.", do, examples)


def _queries(facts: dict[str, Any]) -> Iterator[Finding]:
    same = facts.get("same_queries")
    if same and same["rows"] > SAME_QUERIES * same["of"]:
        share = f"{same['rows']:,} of {same['of']:,}"
        yield Finding("warning", f"{share} queries differ from another in case or white space only.",
                      "write each query in one way in the column of data.query",
                      tuple(" = ".join(_all_words(group[:3])) for group in same["examples"]))  # fmt: skip


def _tasks(facts: dict[str, Any]) -> Iterator[Finding]:
    for name, task in facts.get("tasks", {}).items():
        judged = sum(task[part]["judgments"] for part in ("dev", "test"))
        queries = sum(task[part]["queries"] for part in ("dev", "test"))
        losses: tuple[tuple[Level, float, str, int, str, str], ...] = (
            ("problem", DANGLING, "dangling_judgments", judged, "judgments are of products not in the catalog",
             f"name the column of product ids, data.tasks.{name}.document_id, or add the products to data.products"),
            ("warning", UNREACHABLE, "queries_without_relevant", queries, "queries have no relevant product there",
             f"data.tasks.{name}.corpus=all"),
        )  # fmt: skip
        for level, limit, key, kept, what, do in losses:
            lost = task.get(key, 0)
            if lost > limit * (lost + kept):
                unknown = tuple(task.get("dangling", ())) if key == "dangling_judgments" else ()
                yield Finding(level, f"{task_title(name, facts)}: {lost:,} of {lost + kept:,} {what}.", do, unknown)


def _weights(facts: dict[str, Any]) -> Iterator[Finding]:
    if beaten := facts.get("field_weights"):
        yield Finding("warning", beaten["sentence"], beaten["do"])
    weights = facts.get("weights", {})
    if not weights.get("count"):
        return
    if weights["bad"]:
        yield Finding("problem", f"{weights['bad']:,} pairs have a weight that is negative or not a number.",
                      "loss.score_to_weight._target_=gcl.loss.weight.linear")  # fmt: skip
    if weights["zero"] == weights["count"]:
        yield Finding("problem", "Every pair has weight 0.", "loss=constant")
    elif weights["zero"]:
        share = f"{weights['zero']:,} of {weights['count']:,} pairs"
        yield Finding("warning", f"{share} have weight 0 and contribute nothing to training.",
                      "loss.score_to_weight.floor=0.01")  # fmt: skip
    if weights["effective_pairs"] < UNEVEN * weights["count"]:
        like = f"{weights['count']:,} pairs count as much as {weights['effective_pairs']:,.0f} equal ones"
        yield Finding("warning", f"The weights are so uneven that {like}.",
                      "loss.score_to_weight._target_=gcl.loss.weight.log, which falls more slowly")  # fmt: skip


def _batches(facts: dict[str, Any]) -> Iterator[Finding]:
    batches = facts.get("batches", {})
    for side in ("query", "document"):
        if side in batches and batches[side]["counted_places"] > CROWDED * batches["batch_size"]:
            different = batches["batch_size"] - batches[side]["counted_places"]
            things = f"different {'queries' if side == 'query' else 'products'} on average"
            few = f"A batch of {batches['batch_size']:,} pairs holds only {different:,.1f} {things}"
            yield Finding("warning", f"{few}; pairs of the same one teach each other nothing.", f"plan.unique={side}")
    memory = facts.get("memory")
    if memory and memory["available"] and memory["total"] > memory["available"]:
        total, available = (f"{memory[name] / 2**30:.1f} GiB" for name in ("total", "available"))
        lacking = f"A step needs about {total}, but only {available} are available ({memory['device']})."
        yield Finding("warning", lacking, f"train.micro_batch={memory['fits']}")
