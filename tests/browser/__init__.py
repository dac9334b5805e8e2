"""Tests that drive a real browser, where there is one."""
