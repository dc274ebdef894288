"""Fair tuning: an Optuna study over a model's settings, chosen on dev alone, that many workers share and that a kill
does not end.

`space` says what is searched, `objective` what a trial is, `study` what a study is about, `storages` where it is
kept, `workers` who works on it and for how long, and `team` is several of them on one machine. Nothing here is
imported before a command needs it.
"""
