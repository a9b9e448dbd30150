"""The Faust application: topics, the stage runner, the pipeline as one table, ingest and the care of the stream."""
