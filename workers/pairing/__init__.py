"""The pairing engine: similarities, rules that pair incrementally, and the chance level. Pure: no input or output."""
