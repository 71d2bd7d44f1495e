"""The command line. :mod:`reconlab.cli.__main__` answers help, versions and typos without loading torch."""
