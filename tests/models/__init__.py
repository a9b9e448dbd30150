"""Tests of the full profile's models: they need torch, and run in an environment of their own (make test-models)."""
