"""Contract of stage `t3.sampler`."""
