"""Delta and residual in; a sparse update and the new residual out.

Pure numerics on flat float32 vectors: error feedback, exact top-k selection, step quantiser. Knows
nothing of bytes, files, networks or time.
"""
