"""Records and their predictions → tables → pages: a pure function, without torch and without data.

`gathering` reads records and their predictions, `building` makes `table.Boards` of them, with what `standing` tells of
the rows and `across` of several datasets. `markdown`, `spreadsheet` and `latex` are formats of them, and `writing` puts
them on the disk.
"""
