"""KuPool: jobs over long-lived connections, verified results, exact counts."""

__version__ = "0.1.0"
