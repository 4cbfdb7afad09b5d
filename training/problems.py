"""The one error that a command line shows as a single line."""


class TrainingError(Exception):
    """Something the person at the command line can mend; the message says how."""
