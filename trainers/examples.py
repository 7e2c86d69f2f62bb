"""The examples of one split."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Examples:
    """Texts and labels of one split, all lists of one length.

    `pairs` holds the second sentences, or None where a task has single sentences. Labels are class
    numbers for classification and raw scores for regression.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: list[int] | list[float]

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.labels)
