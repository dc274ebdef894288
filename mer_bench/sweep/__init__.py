"""Many runs: which ones, which of them are recorded already, and the processes and machines that do the rest.

`planning` turns names into runs, `runs` finds those that are recorded, `estimates` reckons the time, `performing` is
what a worker does, and `serial` and `cluster` have it done: in this process, or by workers of Dask, which `places`
starts on this machine or asks a queue for.
"""
