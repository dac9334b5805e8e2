"""Lists every code block: ``python -m tests.docs``. With pages as arguments, runs these."""

from __future__ import annotations

import sys

from tests.docs.pages import blocks, names
from tests.docs.reader import Reader


def main(pages: list[str]) -> int:
    """List, or run; returns the status."""
    if not pages:
        for page in names():
            for block in blocks(page):
                why = f"not run: {block.why_not}" if block.why_not is not None else "run"
                print(f"{block.where}\t{block.language or '-'}\t{why}")
        return 0
    failed = 0
    for page in pages:
        with Reader(page) as reader:
            for failure in reader.failures():
                print(failure, end="\n\n")
                failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
