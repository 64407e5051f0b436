"""How models of each task are scored on test images."""
