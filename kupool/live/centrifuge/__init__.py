"""The Centrifuge client protocol in JSON, without I/O.

:mod:`kupool.live.centrifuge.codes` has the tables of errors and closes,
:mod:`kupool.live.centrifuge.messages` decodes commands and encodes replies and pushes.
"""
