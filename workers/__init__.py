"""The work of each stage, one module a stage; plain async functions over batches, outside parts handed in."""
