"""Training: patches from volumes, losses, one objective a kind of stage, one loop for all of them."""
