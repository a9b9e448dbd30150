"""Training: data sets out of the record, the papers' two trainings (Art2Mus's image aligner, MMVA's towers of valence
and arousal), and export into the repository that the model server reads.

It reads the pipeline's stores and writes models; it never imports the running pipeline. What reads stores and tables
(`collect`, `layouts`, `tables`, `splits`, `emotions`) needs no torch and runs in the default install; what trains
runs in the environment of the full profile's models, `.models`.
"""
