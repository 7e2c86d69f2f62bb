"""The examples of a task."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Examples:
    """Texts and labels of one split, all lists of one length.

    `pairs` holds the second sentences, or None where a task has single sentences. Labels are class
    numbers for classification, raw scores for regression, and for multi-label a list for each example
    with 1.0 for every class that applies and 0.0 for the others.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: list[int] | list[float] | list[list[float]]

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.labels)

    def count_in(self, others: "Examples") -> int:
        """Return how many of these examples have a text, or a pair of texts, that is among the others too."""
        known = set(others._contents())
        return sum(content in known for content in self._contents())

    def _contents(self) -> list[tuple[str, str]]:
        return list(zip(self.texts, self.pairs or [""] * len(self.texts), strict=True))


@dataclass(frozen=True)
class Splits:
    """What a source has of a task; `test` is a test file of the user's own, and None for every other source."""

    train: Examples
    validation: Examples
    test: Examples | None = None
