"""The rows of the table, one script each: ``ROW`` says what is asked, ``measure`` measures it."""
