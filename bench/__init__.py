"""The benchmark: KuPool against a bare stock-Twisted echo of the same bytes."""
