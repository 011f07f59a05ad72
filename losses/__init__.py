"""Pure functions of tensors: the losses of the ten methods."""
