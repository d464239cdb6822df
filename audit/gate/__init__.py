"""The gate of a pipeline: configured data sets, what of them counts, and the verdict."""
