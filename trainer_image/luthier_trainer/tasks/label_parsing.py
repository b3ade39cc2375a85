"""Reads labels from cells: what a column of text, numbers, booleans or lists says a label is. Pure."""


def label_text(cell: object) -> str | None:
    """Return one label as text: 1 is "1", true is "true", and 1.0 is "1", as a column with gaps has it.

    Raises:
        ValueError: with a phrase that says what the cell holds instead.
    """
    if cell is None or cell == "" or cell != cell:
        return None
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, int) or (isinstance(cell, float) and cell.is_integer()):
        return str(int(cell))
    if not isinstance(cell, str):
        raise ValueError(f"{_shown(cell)}; a label is text, an integer or a boolean")
    return cell.strip() or None


def label_list(cell: object, separator: str | None) -> tuple[str, ...] | None:
    """Return the labels of a list, or of a text in which they are separated; None for white space separates them.

    An empty list is no label at all, and so is a text of nothing but separators; an empty cell is a missing one.

    Raises:
        ValueError: with a phrase that says what the cell holds instead.
    """
    if not isinstance(cell, list | tuple):
        text = label_text(cell)
        if text is None:
            return None
        return tuple(piece.strip() for piece in text.split(separator) if piece.strip())
    labels = [label_text(item) for item in cell]
    if None in labels:
        raise ValueError(f"{_shown(cell)}, a list with an empty label")
    return tuple(label for label in labels if label is not None)


def _shown(cell: object) -> str:
    text = repr(cell)
    return text if len(text) <= 40 else text[:40] + "…"
