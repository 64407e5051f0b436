"""What learns: networks, LightningModules, the data module, callbacks. Imports neither Prefect nor MLflow."""
