"""Connections that this side opens, and that are reopened when they are lost."""
