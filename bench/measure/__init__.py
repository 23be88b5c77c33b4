"""measure - what bench/run measures, one file for each kind of measurement."""
