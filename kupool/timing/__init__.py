"""Scheduling and flow control: timers, rate limits, fair shares of reactor turns, and waiting."""
