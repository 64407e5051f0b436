"""Which Prefect server a command talks to, and whether it is the right one."""
