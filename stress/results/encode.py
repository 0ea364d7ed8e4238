"""A document as JSON text: indented, but a list of numbers stays on one line."""

from __future__ import annotations

import json
import re
from typing import Any, Final

# A string holds no raw line break, so that nothing within one looks like this.
_NUMBERS: Final = re.compile(r"\[\n\s+([-+.\deE,\snul]+?)\n\s*\]")


def encode(document: Any) -> str:
    """The text, without a line break at its end. Raises ValueError for NaN and infinities."""
    text = json.dumps(document, indent=2, allow_nan=False)
    return _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text)
