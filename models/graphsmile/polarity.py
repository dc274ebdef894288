"""Sentiment polarity of an emotion, read from the name of its class."""

from __future__ import annotations

POLARITIES = ("negative", "neutral", "positive")

NAMES: dict[str, tuple[str, ...]] = {
    "negative": (
        *("negative", "anger", "angry", "mad", "annoyed", "annoyance", "disgust", "disgusted", "contempt"),
        *("sadness", "sad", "disappointed", "disappointment", "depressed", "frustrated", "frustration", "distress"),
        *("fear", "fearful", "scared", "afraid", "anxiety", "anxious", "worried", "worry", "nervous", "guilt", "shame"),
    ),
    "neutral": ("neutral", "neutrality", "calm", "none", "other", "others", "no emotion"),
    "positive": (
        *("positive", "joy", "joyful", "happy", "happiness", "excited", "excitement", "amused", "amusement", "love"),
        *("peaceful", "powerful", "grateful", "gratitude", "relaxed", "relieved", "relief", "proud", "pride"),
        *("hope", "hopeful", "satisfied", "content"),
    ),
    "": ("surprise", "surprised", "astonished"),
}
"""Names by polarity; those of "" may be of either."""


def class_polarities(classes: tuple[str, ...]) -> tuple[int | None, ...] | None:
    """For each class the index of its polarity; None where it may be of either.

    Returns:
        None instead of all of it if a name is not in the table, or if only one polarity is left: then nothing can
        be said of a sentiment.
    """
    by_name = {name: polarity for polarity, names in NAMES.items() for name in names}
    found: list[int | None] = []
    for name in classes:
        polarity = by_name.get(name.lower().replace("_", " ").strip())
        if polarity is None:
            return None
        found.append(POLARITIES.index(polarity) if polarity else None)
    return tuple(found) if len({index for index in found if index is not None}) > 1 else None


def is_sentiment(polarities: tuple[int | None, ...]) -> bool:
    """Whether the classes are polarities themselves, so that a sentiment says nothing more."""
    return None not in polarities and len(set(polarities)) == len(polarities)
