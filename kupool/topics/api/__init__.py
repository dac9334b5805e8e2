"""The operations of topics for those outside of this process, whatever they come by.

:mod:`kupool.topics.api.table` lists the operations. Each has a struct of params, and a result of
JSON values. Sessions of the pool call them as methods (:mod:`kupool.topics.sessions`), the HTTP API
has a route for each.
"""
