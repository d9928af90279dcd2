"""Exceptions that decide how a command ends: an error of the user, a request to stop."""


class UserError(Exception):
    """What was requested cannot be done: shown as one message, without a traceback."""


class Interrupted(Exception):
    """A request to stop was followed; the same command resumes from what is stored."""
