"""Words that people and public sets grade with, and what each counts."""

from __future__ import annotations

from collections.abc import Iterable

GRADES: tuple[tuple[str, dict[str, float]], ...] = (
    ("WANDS counts them so", {"exact": 2, "partial": 1, "irrelevant": 0}),
    ("the gains of ESCI", {"e": 1, "s": 0.1, "c": 0.01, "i": 0}),
    ("the gains of ESCI", {"exact": 1, "substitute": 0.1, "complement": 0.01, "irrelevant": 0}),
    ("", {"perfect": 4, "excellent": 3, "good": 2, "fair": 1, "bad": 0, "poor": 0}),
    ("", {"highly relevant": 3, "very relevant": 3, "relevant": 2, "somewhat relevant": 1, "partially relevant": 1,
          "slightly relevant": 1, "not relevant": 0, "irrelevant": 0, "off-topic": 0}),
    ("", {"sehr relevant": 3, "relevant": 2, "teilweise relevant": 1, "nicht relevant": 0, "irrelevant": 0}),
    ("", {"very high": 4, "high": 3, "medium": 2, "low": 1, "none": 0}),
    ("", {"hoch": 3, "mittel": 2, "niedrig": 1, "keine": 0}),
    ("", {"yes": 1, "no": 0, "y": 1, "n": 0, "true": 1, "false": 0, "ja": 1, "nein": 0, "oui": 1, "non": 0}),
    ("", {"purchase": 5, "purchased": 5, "add_to_cart": 3, "cart": 3, "click": 1, "clicked": 1,
          "view": 0.1, "viewed": 0.1}),
)  # fmt: skip


def grades_of(words: Iterable[str]) -> tuple[dict[str, float], str]:
    """({word: what it counts}, why), in the order of their worth. Words that nobody knows count 1."""
    words = list(dict.fromkeys(words))
    for why, known in GRADES:
        if all(word.lower() in known for word in words):
            graded = {word: known[word.lower()] for word in words}
            return dict(sorted(graded.items(), key=lambda item: -item[1])), why
    return dict.fromkeys(words, 1.0), "say what each counts: nobody can guess it, so all count 1"
