"""Media: from the bytes that people bring to the few bytes that models read.

`pool` decodes originals in child processes with limits and yields one rendition for each item; `parts` cuts a
rendition into the five parts that models are handed. Where bytes come from and go to is left to the callers.
Nothing is imported here, so that a decoding child loads only what its file needs.
"""
