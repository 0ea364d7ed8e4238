"""The known name that an unknown one may have been meant for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

#: Least likeness of a name that is offered, as difflib measures it, from 0 to 1.
_LIKENESS: Final = 0.6
#: Another name is offered beside the best one if its likeness is at most this much less.
_AS_LIKELY: Final = 0.1


def did_you_mean(word: str, names: Iterable[str], otherwise: str) -> str:
    """``did you mean a or b?`` with the names most like ``word``; ``otherwise`` if none is like it.

    Case and underscores make no difference: ``NO_CMO`` is like ``no-cmo``.
    """
    from difflib import SequenceMatcher, get_close_matches  # only a mistake needs it

    written = _plain(word)
    known = {_plain(name): name for name in names}
    like = {
        each: SequenceMatcher(None, each, written).ratio() for each in get_close_matches(written, known, 3, _LIKENESS)
    }
    meant = [known[each] for each, likeness in like.items() if likeness >= max(like.values()) - _AS_LIKELY]
    return f"did you mean {' or '.join(meant)}?" if meant else otherwise


def _plain(name: str) -> str:
    return name[:200].casefold().replace("_", "-")
