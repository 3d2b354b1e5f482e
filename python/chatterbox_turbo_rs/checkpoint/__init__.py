"""Where a model's files are and how they are read: configuration, tensors, upstream's torch archives, packed weights."""
