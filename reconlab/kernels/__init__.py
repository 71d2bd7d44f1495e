"""Hot operators on plain tensors: each a folder with a torch reference, numba and Triton paths, and one function."""
