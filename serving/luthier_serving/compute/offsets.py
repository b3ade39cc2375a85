"""Maps each character of the cleaned text to its position in the text that the caller sent.

Cleaning collapses white space and lowers the case, which may move every character; positions in an answer refer to the
caller's text. Follows `luthier_api.text.normalize_text` step by step; a test keeps the two in step.
"""

import re

_WORD = re.compile(r"\S+")


def original_positions(text: str, *, lowercase: bool, strip_whitespace: bool) -> list[int]:
    """Return the position in `text` of each character of `normalize_text(text)`."""
    kept = list(range(len(text)))
    if strip_whitespace:
        kept = []
        for word in _WORD.finditer(text):
            if kept:
                kept.append(word.start() - 1)
            kept.extend(range(word.start(), word.end()))
    # One character in lower case may be two ("İ").
    return [position for position in kept for _ in text[position].lower()] if lowercase else kept
