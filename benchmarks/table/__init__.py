"""The table: records, the runner of the rows, the page and the plot."""
