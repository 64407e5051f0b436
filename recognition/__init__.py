"""The domain in plain Python: configuration, data, augmentation, scores, figures, tracking, the model bundle.

Nothing here imports Prefect or Lightning; everything is usable from a notebook.
"""

__version__ = "0.1.0"
