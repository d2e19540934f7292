"""A module beside the steps."""


class Machine:
    """What before_all makes."""

    def __init__(self):
        self.calls = []
