"""Text that others wrote, made fit to be kept and shown: nothing in it moves a terminal's cursor, and it is bounded.

Pods, registries, webhooks and other controllers write it; some of them are a tenant's own. Pure.
"""

LONGEST = 8192
"""Characters that are kept of a text in the cluster. Statuses clip further, to what a person reads."""


def printable(text: object, longest: int = LONGEST) -> str:
    """Return the text with control and format characters as spaces; new lines stay, as tracebacks need them."""
    clipped = str(text)[:longest]
    if clipped.isprintable():
        return clipped
    return "".join(each if each.isprintable() or each == "\n" else " " for each in clipped)
