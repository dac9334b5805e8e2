"""Storage on disk: the data folder, and databases that run in a thread of their own.

The package does not know what is stored. :mod:`kupool.log`, :mod:`kupool.stats` and
:mod:`kupool.pool` each store their own data.
"""
