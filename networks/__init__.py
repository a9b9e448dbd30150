"""The papers' networks, in torch only: what maps a picture into music's conditioning, the towers of valence and
arousal, the captioner of music, and the loading of ImageBind and AudioLDM 2.

Nothing here knows of Promenade's records, stores or model server, and nothing else of Promenade is imported. torch is
no part of the default install: the environment of the full profile's models holds it (`make test-models` makes it).
"""
