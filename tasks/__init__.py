"""The steps of a flow: one thin Prefect task a stage."""
