"""The bus across nodes on RabbitMQ: each node has a broker of its own, and they tell each
other who listens.

A node has one queue. What is for one node goes there through a direct exchange, what is for
all through a fanout exchange, and each message says where to reply to. The node where
something is published chooses among all subscribers, and sees it through to its outcome.
:class:`kupool.bus.rabbit.bus.RabbitBus` puts the parts together.
"""
