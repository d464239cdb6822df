"""Does a trait still transfer: students of the data before and after, compared."""
