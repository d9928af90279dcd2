"""Studies over the pipeline: the options that they vary, the sampler, the workers."""
