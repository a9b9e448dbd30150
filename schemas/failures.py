"""The two kinds of trouble, told apart once for the whole house.

*Passing* trouble goes away by itself (a part is down, a call timed out): the stage waits and tries again.
*Lasting* trouble never does (a file that cannot be decoded, a tensor that the model refuses): the item becomes
a dead letter with a reason that a person can read. Everything else that is raised is a defect of ours and is
treated as lasting for the item that met it, with its type named, so that one item cannot stop a queue.
"""

from __future__ import annotations


class Passing(Exception):
    """A part is away or overloaded; the same call may succeed later.

    Args:
        part: which part is waited for, as `status` prints it ("object store", "model server", "broker", ...).
        reason: what it answered, in plain words.
        suspect: True when the item itself may have caused it (the model's process died while it worked on
            the item). The runner then counts attempts for each item instead of waiting for ever.
    """

    def __init__(self, part: str, reason: str, *, suspect: bool = False) -> None:
        super().__init__(f"{part}: {reason}")
        self.part = part
        self.reason = reason
        self.suspect = suspect


class Lasting(Exception):
    """This input will never work; trying again without changing something is useless.

    Args:
        reason: what is wrong and where, in plain words.
        advice: what a person can do about it.
    """

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(reason if not advice else f"{reason} {advice}")
        self.reason = reason
        self.advice = advice


class Declined(Lasting):
    """A model says of these very inputs that it does not take them; asking it again is useless."""


class Refused(ValueError):
    """A word, name, path or setting given by a person is not acceptable; nothing was done.

    The message says what, where and what to do instead.
    """
