"""The daemon: the parts put together, started and stopped in order.

With :mod:`kupool.tap`, this is the composition root; nothing else imports it.
"""
