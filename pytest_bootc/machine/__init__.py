"""Machines: what an image boots on."""
