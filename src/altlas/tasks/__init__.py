"""Built-in task packs and how a task is found."""
