"""The one exception of the evaluator."""


class MilError(Exception):
    """The saved program is malformed, or holds something the evaluator does not implement. The message says which."""
