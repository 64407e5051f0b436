"""Deployments on a Prefect server: applied, triggered, scheduled, and what happens by itself."""
