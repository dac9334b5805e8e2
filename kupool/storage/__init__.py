"""Where bytes rest: the data folder, and databases behind a thread of their own.

Knows nothing of what is kept; :mod:`kupool.log`, :mod:`kupool.stats` and
:mod:`kupool.pool` each keep theirs here.
"""
