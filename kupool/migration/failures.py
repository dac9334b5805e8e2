"""What can go wrong with a move."""

from __future__ import annotations


class CannotMove(Exception):
    """The data cannot be moved; says in one line why, and what to do."""


__all__ = ["CannotMove"]
