"""Which images a resource may name: the operator's allow-list, and how a reference is compared with it.

An entry is a whole reference, or a prefix that ends in `/`. Both sides are compared in their normal form; what is no
reference is never allowed. Pure.
"""

from collections.abc import Sequence

from luthier_operator.model.image_reference import NotAReference, normal_entry, normal_form

_SHOWN = 8


def violation(image: str | None, allowed: Sequence[str], own: str) -> str | None:
    """Return why an image may not be used, in one sentence, or None if it may.

    Args:
        image: What the resource names; None is the operator's own.
        allowed: The list; empty allows every image.
        own: The operator's own image for this purpose, which is always allowed.
    """
    if image is None or image == own or not allowed:
        return None
    remedy = "Use one of these, leave image out for the operator's own, or ask whoever runs Luthier to allow it."
    may = f"Allowed: {_listed(allowed)}."
    try:
        wanted = normal_form(image)
    except NotAReference as error:
        return f"{error} Images are restricted. {may} {remedy}"
    if any(_covers(entry, wanted) for entry in allowed):
        return None
    return f"The image {image} is not allowed. {may} {remedy}"


def _covers(entry: str, wanted: str) -> bool:
    normal = normal_entry(entry)
    return wanted.startswith(normal) if normal.endswith("/") else wanted == normal


def _listed(allowed: Sequence[str]) -> str:
    shown = ", ".join(allowed[:_SHOWN])
    return f"{shown} and {len(allowed) - _SHOWN} more" if len(allowed) > _SHOWN else shown
