"""The bus across nodes on RabbitMQ: the brokers of all nodes share their subscriptions.

A node has one queue. Messages for one node go through a direct exchange, messages for all nodes
through a fanout exchange; each message contains its sender's address. The node where a message is
published chooses among all subscribers, and brings the message to its outcome.
:class:`kupool.bus.rabbit.bus.RabbitBus` connects the parts.
"""
