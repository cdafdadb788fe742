"""The measurements of chipmink against its peers: ``python -m benches`` (or ``make bench``).

`measure` and `table` are the harness; `workloads` build objects and run sessions and know nothing of what is measured;
`rows` join the two, one module for each kind of row. Rivals are imported by `rows` only, when they run.
"""
