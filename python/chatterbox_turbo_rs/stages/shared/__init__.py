"""What the stages share: checks of arrays, signal processing, PyTorch modules from upstream's tensors."""
