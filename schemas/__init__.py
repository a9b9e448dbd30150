"""The words everyone shares: media, records, events, spaces, measurements and failures, as pydantic models.

Nothing here does input or output (but `schemas.export`, run as a program), and nothing imports another room.
"""
