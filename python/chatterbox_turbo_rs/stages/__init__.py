"""The stages of the pipeline: one folder a stage, named by its key."""
