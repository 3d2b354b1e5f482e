"""Measuring how far two implementations of a stage are apart: figures (``metrics``) and the limits on them (``tolerances``)."""
