"""One module per stage of the workflow, each with one public `run`."""
