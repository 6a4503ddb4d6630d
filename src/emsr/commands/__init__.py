"""Verbs that no rule runs."""
