"""What runs a request: the registry of stages, the pipeline, T3's loop, many texts at once."""
