"""Text made harmless: what others wrote, before it reaches a terminal or a log."""

from __future__ import annotations

import re

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: str, limit: int | None = None) -> str:
    r"""Return the text on one line, with control characters written as escapes.

    Terminal escapes (C0, C1, DEL), line breaks, and the marks that turn the
    direction of text around become `\x1b` and the like.

    Args:
        text: Anything.
        limit: Longest result, in characters; what is cut off ends in `…`.
    """
    seen = _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text[:limit])
    if limit is not None and len(seen) + len(text[limit:]) > limit:
        return seen[: limit - 1] + "…"
    return seen
