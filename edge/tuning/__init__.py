"""Which choice of a kernel is the fastest: measured on the host, on the emulated core or on boards, and recorded."""

BUDGET = 24
"""Candidates of one kernel; a space of no more is searched exhaustively."""
