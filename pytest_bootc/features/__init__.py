"""Behave's features as pytest items: a scenario is a test, ``environment.py`` and ``steps/`` are used as they are."""
