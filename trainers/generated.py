"""The task that stkd generates for itself, so that a first run needs no data.

Each text is one remark of a guest about a hotel, a cafe or the like. The class says whether the guest is happy with it
now, all in all. Some remarks say so with one word or with an event; in the others the words alone mislead, and only the
way they are put together tells, sometimes in two steps:

- "In my view, the breakfast at the inn was superb." is happy.
- "The pool was dreadful, but all in all the hotel was lovely." is happy.
- "The wine at the pub used to be great." is unhappy.
- "I doubt that the wine at the pub is no longer great." is happy.

The last fifth of the words of judgement, and of the events, occurs in the validation and test examples only, so that a
model also has to know what words mean.
"""

import random
from collections.abc import Sequence

from stkd.trainers.errors import UserError
from stkd.trainers.examples import Examples

NAME = "remarks"
CLASS_NAMES = ("unhappy", "happy")

MAX_EXAMPLES = 10_000
"""Of all splits together: the simplest kinds of remark would run out beyond it."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


WORDS = (
    _words(
        "awful terrible horrible poor disappointing bad unpleasant nasty miserable shabby lousy mediocre depressing "
        "annoying pathetic unbearable inferior disgusting ghastly frustrating dull hopeless unacceptable atrocious "
        "dreadful dismal appalling hideous inadequate sad"
    ),
    _words(
        "wonderful excellent lovely great superb good pleasant charming splendid amazing perfect brilliant "
        "outstanding impressive enjoyable magnificent beautiful fabulous exceptional nice terrific flawless "
        "satisfying admirable delightful fantastic marvelous exquisite gorgeous fine"
    ),
)
"""Words of judgement, by class."""

COMPARATIVES = (
    _words("worse uglier nastier drearier duller shabbier sadder weaker poorer gloomier"),
    _words("better nicer prettier classier lovelier grander cosier smarter finer brighter"),
)

EVENTS = (
    (
        "we asked for our money back",
        "nobody apologized for the mess",
        "the manager shouted at us",
        "we left before dessert",
        "we found insects in the bathroom",
        "they charged us twice",
        "we froze all night",
        "they lost our luggage",
        "the ceiling leaked on my bed",
        "I regretted the booking at once",
        "we waited two hours for cold soup",
        "the noise kept us awake",
        "we got food poisoning",
        "I complained three times",
        "I could not wait to leave",
    ),
    (
        "we booked again at once",
        "everybody smiled at us",
        "the cook came out to greet us",
        "we stayed for another drink",
        "they gave us a free upgrade",
        "I left a big tip",
        "we felt at home",
        "they remembered our names",
        "we did not want to leave",
        "I would recommend it to anyone",
        "the children laughed all day",
        "they brought us fresh flowers",
        "we slept like babies",
        "I wrote a thank-you note",
        "we relaxed from the first minute",
    ),
)
"""What happened to the guest, by class."""

# `{same}` is a word of the example's class, `{other}` one of the opposite class; so are the clauses.
CLAUSES = (
    "the {thing} at the {place} is {same}",
    "the {thing} at the {place} is not {other}",
    "the {thing} at the {place} is anything but {other}",
    "the {thing} at the {place} is no longer {other}",
    "the {thing} at the {place} is still {same}",
)

TEMPLATES = (
    (
        22,
        (
            "{opening}the {thing} at the {place} was {same}.",
            "{opening}we found the {thing} at the {place} {same}.",
            "{opening}the {thing} was {same}, as was the {thing2}.",
        ),
    ),
    (10, ("At the {place}, {event}.", "Last week at the {place}, {event}.")),
    (
        14,
        (
            "The {thing} was {other}, but all in all the {place} was {same}.",
            "Although the {thing} was {other}, the {place} as a whole was {same}.",
            "All in all the {place} was {same}, even if the {thing} was {other}.",
        ),
    ),
    (
        20,
        (
            "{opening}the {thing} at the {place} was not {other} at all.",
            "{opening}the {thing} at the {place} was anything but {other}.",
            "{opening}nobody could call the {thing} at the {place} {other}.",
            "The {thing} at the {place} used to be {other}.",
            "The {thing} at the {place} is still {same}.",
        ),
    ),
    (
        28,
        (
            "My friends say that {other_clause}, but I disagree.",
            "My friends say that {same_clause}, and I agree.",
            "I doubt that {other_clause}.",
            "I am sure that {same_clause}.",
            "It is not true that {other_clause}.",
            "It is true that {same_clause}.",
        ),
    ),
    (
        6,
        (
            "This {thing} was {same_comparative} than the one at the {place}.",
            "The {thing} at the {place} was {other_comparative} than this one.",
        ),
    ),
)
"""By kind of remark: its share of the examples in per cent, and its sentences."""

OPENINGS = ("", "", "In my view, ", "To be honest, ", "In fact, ", "If you ask me, ", "Once more, ", "On Sunday ")
THINGS = _words(
    "room bed view breakfast coffee dinner service music garden terrace pool bathroom wine soup location furniture "
    "lighting menu lobby bar"
)
PLACES = _words("hotel inn lodge cafe bistro restaurant resort hostel guesthouse spa pub villa")


def generate(
    train: int = 2000, validation: int = 500, test: int = 500, seed: int = 0
) -> tuple[Examples, Examples, Examples]:
    """Make training, validation and test examples; no text occurs twice, and the classes are equally frequent.

    The same arguments give the same examples on every machine.

    Raises:
        UserError: a size is below 1, or all together exceed `MAX_EXAMPLES`.

    """
    sizes = (train, validation, test)
    if min(sizes) < 1 or sum(sizes) > MAX_EXAMPLES:
        raise UserError(
            f"the generated task cannot have {train} training, {validation} validation and {test} test examples: "
            f"each must be at least 1, and all together at most {MAX_EXAMPLES}"
        )
    source = random.Random(seed)  # noqa: S311 (no secret depends on it)
    seen: set[str] = set()
    return (
        _split(source, train, seen, unseen_words=False),
        _split(source, validation, seen, unseen_words=True),
        _split(source, test, seen, unseen_words=True),
    )


def _split(source: random.Random, size: int, seen: set[str], unseen_words: bool) -> Examples:
    labels = [index % len(CLASS_NAMES) for index in range(size)]
    source.shuffle(labels)
    return Examples([_new_remark(source, label, seen, unseen_words) for label in labels], None, list(labels))


def _new_remark(source: random.Random, label: int, seen: set[str], unseen_words: bool) -> str:
    while (remark := _remark(source, label, unseen_words)) in seen:
        pass
    seen.add(remark)
    return remark


def _remark(source: random.Random, label: int, unseen_words: bool) -> str:
    def pick(words: Sequence[str]) -> str:
        return source.choice(words if unseen_words else words[: len(words) * 4 // 5])

    ((_, templates),) = source.choices(TEMPLATES, weights=[share for share, _ in TEMPLATES])
    thing, thing2 = source.sample(THINGS, 2)
    fillings = {
        "opening": source.choice(OPENINGS),
        "thing": thing,
        "thing2": thing2,
        "place": source.choice(PLACES),
        "same": pick(WORDS[label]),
        "other": pick(WORDS[1 - label]),
        "same_comparative": pick(COMPARATIVES[label]),
        "other_comparative": pick(COMPARATIVES[1 - label]),
        "event": pick(EVENTS[label]),
    }
    opposite = fillings | {"same": fillings["other"], "other": fillings["same"]}
    fillings["same_clause"] = source.choice(CLAUSES).format(**fillings)
    fillings["other_clause"] = source.choice(CLAUSES).format(**opposite)
    text = source.choice(templates).format(**fillings)
    return text[0].upper() + text[1:]
