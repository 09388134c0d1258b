"""Files of tensors as they come from anybody: checked before values are made, and nothing in them is run."""
