"""A module that is imported while a step runs."""

WORD = "late"
