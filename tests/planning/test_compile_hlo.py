"""Parsing of buffer assignments and of out-of-memory errors."""

import pytest

from fusar_jax.planning.compile_hlo import DoesNotFitError, Memory, read_memory

PLACED = (
  "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 21.61G of"
  " 15.75G hbm. Exceeded hbm capacity by 5.86G.\n\n"
  "Largest program allocations in hbm:\n\n"
  "  1. Size: 7.00G\n     Operator: op_name=jit(step)/dot\n     Shape: ...\n"
)
BEFORE = (
  "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the"
  " total memory required for HLO temporaries (21.61G) exceeds available HBM"
  " (15.75G). HLO module: jit_step.."
)

BUFFERS = """BufferAssignment:
allocation 0: size 512, page 0, thread-local:
 value: <467 or.2410 @0> (size=512,offset=0): u8[]{:T(512)}
allocation 1: size 4096, page 0, parameter 50, shape |bf16[8,16]| at ShapeIndex
allocation 2: size 1024, page 0, parameter 3, maybe-live-out:
allocation 3: size 8192, page 0, preallocated-temp:
allocation 4: size 2048, color 1, page 0, preallocated-temp:
allocation 5: size 256, page 0, maybe-live-out:
allocation 6: size 64, page 0, output shape is |(s32[])|, maybe-live-out:
"""


def test_memory_of_the_chip_is_summed_by_kind():
  """Vector memory (color 1) and donated parameters do not count as outputs."""
  memory = read_memory(BUFFERS)
  assert memory == Memory(arguments=5120, temporaries=8192, outputs=320)
  assert memory.peak == 13632


@pytest.mark.parametrize(
  ("message", "largest"),
  [(PLACED, ["7.00G Operator: op_name=jit(step)/dot"]), (BEFORE, [])],
)
def test_the_compiler_s_message_is_read(message, largest):
  error = DoesNotFitError(message)
  assert (error.used, error.limit) == (
    round(21.61 * 2**30),
    round(15.75 * 2**30),
  )
  assert error.largest == largest
