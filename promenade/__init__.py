"""The front door: command line, settings, composition roots, the supervisor of the embedded stack."""
