import statistics
from collections import Counter

import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from stkd.trainers.errors import UserError
from stkd.trainers.examples import Examples
from stkd.trainers.generated import CLASS_NAMES, MAX_EXAMPLES, TEMPLATES, WORDS, generate


@pytest.fixture(scope="module")
def splits() -> tuple[Examples, Examples, Examples]:
    return generate()


def words_of(examples: Examples) -> set[str]:
    return {word.strip(".,") for text in examples.texts for word in text.lower().split()}


def test_same_seed_same_examples(splits: tuple[Examples, Examples, Examples]) -> None:
    assert generate() == splits


def test_first_examples_never_change() -> None:
    """A fingerprint of the task would silently lose its meaning between processes or releases."""
    train, validation, _ = generate(train=2, validation=2, seed=0)
    assert train.texts + validation.texts == [
        "It is not true that the soup at the guesthouse is not unbearable.",
        "In fact, we found the coffee at the guesthouse satisfying.",
        "The pool was inferior, but all in all the hostel was exquisite.",
        "My friends say that the wine at the restaurant is still nasty, and I agree.",
    ]
    assert [*train.labels, *validation.labels] == [0, 1, 1, 0]


def test_different_seeds_differ(splits: tuple[Examples, Examples, Examples]) -> None:
    other_train, other_validation, _ = generate(seed=1)
    assert len(set(splits[0].texts) & set(other_train.texts)) < 0.1 * len(other_train)
    assert splits[1] != other_validation


def test_sizes(splits: tuple[Examples, Examples, Examples]) -> None:
    assert [len(split) for split in splits] == [2000, 500, 500]
    assert [split.pairs for split in splits] == [None] * 3
    assert [len(split) for split in generate(train=7, validation=3, test=2)] == [7, 3, 2]


def test_classes_are_balanced(splits: tuple[Examples, Examples, Examples]) -> None:
    for split in splits:
        assert set(split.labels) == set(range(len(CLASS_NAMES)))
        assert max(Counter(str(label) for label in split.labels).values()) < 0.6 * len(split)


def test_no_text_occurs_twice(splits: tuple[Examples, Examples, Examples]) -> None:
    texts = [text for split in splits for text in split.texts]
    assert len(set(texts)) == len(texts)


def test_some_words_of_judgement_are_left_for_validation_and_test(splits: tuple[Examples, Examples, Examples]) -> None:
    judgements = {word for words in WORDS for word in words}
    for split in splits[1:]:
        unseen = (words_of(split) - words_of(splits[0])) & judgements
        assert len(unseen) >= 0.15 * len(judgements)


def test_shares_add_up() -> None:
    assert sum(share for share, _ in TEMPLATES) == 100


@pytest.mark.parametrize("vectorizer", [CountVectorizer(), TfidfVectorizer()])
def test_words_alone_do_not_solve_it(splits: tuple[Examples, Examples, Examples], vectorizer: CountVectorizer) -> None:
    train, validation, _ = splits
    model = LogisticRegression(max_iter=1000).fit(vectorizer.fit_transform(train.texts), train.labels)
    assert model.score(vectorizer.transform(validation.texts), validation.labels) < 0.8


def test_sentences_are_readable(splits: tuple[Examples, Examples, Examples]) -> None:
    for split in splits:
        for text in split.texts:
            assert text[0].isupper()
            assert text.endswith(".")
            assert "{" not in text
            assert "  " not in text
            assert 4 <= len(text.split()) <= 20
        assert 8 <= statistics.median(len(text.split()) for text in split.texts) <= 14


@pytest.mark.parametrize(("train", "validation"), [(0, 5), (5, 0), (-1, 5), (MAX_EXAMPLES, 1)])
def test_impossible_sizes_are_refused(train: int, validation: int) -> None:
    with pytest.raises(UserError, match=f"{train} training, {validation} validation"):
        generate(train=train, validation=validation)


def test_largest_size_is_possible() -> None:
    splits = generate(train=MAX_EXAMPLES - 1000, validation=500)
    assert len({text for split in splits for text in split.texts}) == MAX_EXAMPLES
