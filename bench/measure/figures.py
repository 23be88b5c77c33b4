"""figures - how the values of several rounds are told."""

import statistics
import sys

median = statistics.median
PARTED = 0.2  # of the median: values of a row further apart than this are two states, not noise


def cell(values, digits=2):
    """The median and the range."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def states(values):
    """
    The medians of two groups if the values fall into two, else the median alone. Two groups are
    two values or more on either side of a gap that is both wide and most of the whole range.
    """
    ordered = sorted(values)
    if len(ordered) < 4:
        return [median(ordered)]
    gap, at = max((b - a, i + 1) for i, (a, b) in enumerate(zip(ordered, ordered[1:])))
    apart = gap > PARTED * median(ordered) and gap > (ordered[-1] - ordered[0]) / 2
    if not apart or min(at, len(ordered) - at) < 2:
        return [median(ordered)]
    return [median(ordered[:at]), median(ordered[at:])]


def told(values, digits=2):
    """`cell`, or both states of a row that has two."""
    groups = states(values)
    if len(groups) == 1:
        return cell(values, digits)
    return " or ".join(f"**{g:.{digits}f}**" for g in groups)


def row(cells):
    return "| " + " | ".join(cells) + " |"


def head(cells):
    return [row(cells), "|---" * len(cells) + "|"]


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
