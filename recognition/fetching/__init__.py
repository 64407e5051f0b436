"""Bringing files to this machine: from http and object storage, resumed, checked, and within what may be read."""
