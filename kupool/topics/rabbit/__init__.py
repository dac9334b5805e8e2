"""Topics in RabbitMQ, for several nodes."""
