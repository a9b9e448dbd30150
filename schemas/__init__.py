"""The words everyone shares: media, records, events, spaces, measurements and failures, as pydantic models.

Nothing here does input or output, and nothing here imports another room of the house.
"""
