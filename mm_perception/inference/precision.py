"""What an engine may compute in, and how far that may lead it."""

FLOAT32, INT8 = 'float32', 'int8'
SIXTEEN_BITS = FLOAT16, BFLOAT16 = 'float16', 'bfloat16'
BOUNDS = {FLOAT32: 1e-3, FLOAT16: 1e-2, BFLOAT16: 1e-1, INT8: 5e-2}
"""
By precision: how far an engine may be from float32 on the CPU, see
:func:`~mm_perception.inference.proof.difference`.
"""
