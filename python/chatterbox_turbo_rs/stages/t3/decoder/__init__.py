"""Contract of stage `t3.decoder`."""
