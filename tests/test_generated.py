import statistics

import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from stkd.trainers.errors import UserError
from stkd.trainers.examples import Examples
from stkd.trainers.generated import CLASS_NAMES, MAX_EXAMPLES, TEMPLATES, WORDS, generate


@pytest.fixture(scope="module")
def splits() -> tuple[Examples, Examples]:
    return generate()


def words_of(examples: Examples) -> set[str]:
    return {word.strip(".,") for text in examples.texts for word in text.lower().split()}


def test_same_seed_same_examples(splits: tuple[Examples, Examples]) -> None:
    assert generate() == splits


def test_first_examples_never_change() -> None:
    """A fingerprint of the task would silently lose its meaning between processes or releases."""
    train, validation = generate(train=2, validation=2, seed=0)
    assert train.texts + validation.texts == [
        "It is not true that the soup at the guesthouse is not unbearable.",
        "In fact, we found the coffee at the guesthouse satisfying.",
        "The pool was inferior, but all in all the hostel was exquisite.",
        "My friends say that the wine at the restaurant is still nasty, and I agree.",
    ]
    assert [*train.labels, *validation.labels] == [0, 1, 1, 0]


def test_different_seeds_differ(splits: tuple[Examples, Examples]) -> None:
    other_train, other_validation = generate(seed=1)
    assert len(set(splits[0].texts) & set(other_train.texts)) < 0.1 * len(other_train)
    assert splits[1] != other_validation


def test_sizes(splits: tuple[Examples, Examples]) -> None:
    train, validation = splits
    assert (len(train), len(validation)) == (2000, 500)
    assert train.pairs is None
    assert validation.pairs is None
    assert [len(split) for split in generate(train=7, validation=3)] == [7, 3]


def test_classes_are_balanced(splits: tuple[Examples, Examples]) -> None:
    for split in splits:
        assert set(split.labels) == set(range(len(CLASS_NAMES)))
        assert max(list(split.labels).count(label) for label in range(len(CLASS_NAMES))) < 0.6 * len(split)


def test_no_text_occurs_twice(splits: tuple[Examples, Examples]) -> None:
    texts = [text for split in splits for text in split.texts]
    assert len(set(texts)) == len(texts)


def test_some_words_of_judgement_are_left_for_validation(splits: tuple[Examples, Examples]) -> None:
    judgements = {word for words in WORDS for word in words}
    unseen = (words_of(splits[1]) - words_of(splits[0])) & judgements
    assert len(unseen) >= 0.15 * len(judgements)


def test_shares_add_up() -> None:
    assert sum(share for share, _ in TEMPLATES) == 100


@pytest.mark.parametrize("vectorizer", [CountVectorizer(), TfidfVectorizer()])
def test_words_alone_do_not_solve_it(splits: tuple[Examples, Examples], vectorizer: CountVectorizer) -> None:
    train, validation = splits
    model = LogisticRegression(max_iter=1000).fit(vectorizer.fit_transform(train.texts), train.labels)
    assert model.score(vectorizer.transform(validation.texts), validation.labels) < 0.8


def test_sentences_are_readable(splits: tuple[Examples, Examples]) -> None:
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
    with pytest.raises(UserError, match=f"{train} training and {validation} validation"):
        generate(train=train, validation=validation)


def test_largest_size_is_possible() -> None:
    train, validation = generate(train=MAX_EXAMPLES - 500, validation=500)
    assert len(set(train.texts + validation.texts)) == MAX_EXAMPLES
