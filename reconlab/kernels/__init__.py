"""Hot operators on plain tensors: each a folder with a torch reference, a numba path and one public function."""
