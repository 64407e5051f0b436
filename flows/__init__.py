"""What is triggered: one Prefect flow a file, and the command line.

The libraries read the environment when they are imported, so it is prepared before any of them is.
"""

from recognition.settings import prepare_environment

prepare_environment()
