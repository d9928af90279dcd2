"""Studies over the pipeline: what is varied, by which sampler, on which machines."""
