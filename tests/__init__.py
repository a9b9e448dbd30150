"""The tests: named after what must hold."""
