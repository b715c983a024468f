"""FLOPs, HBM traffic and collectives of a small program, counted by hand."""

from pathlib import Path

import pytest

from fusar_jax.planning import hlo

FOLDER = Path(__file__).parent

# 4 partitions. A loop of 5 iterations gathers a layer of 8 x 16 bf16 (256 B, 64
# B per shard), multiplies and reduces; one of two branches multiplies.
PROGRAM = (FOLDER / "loop.hlo").read_text()


def test_loops_count_as_often_as_they_run():
  traffic = hlo.read(PROGRAM)
  gather, reduce, permute = traffic.collectives
  # Three remote shards of 8 x 4 bf16.
  assert (gather.kind, gather.times, gather.bytes) == ("all-gather", 5, 192)
  assert gather.groups == ((0, 1, 2, 3),)
  # 2 x 16 bf16 over 2 chips: reduce-scatter of half, all-gather of half.
  assert (reduce.kind, reduce.times, reduce.bytes) == ("all-reduce", 5, 64)
  assert reduce.groups == ((0, 2), (1, 3))
  assert (permute.times, permute.bytes) == (1, 32)
  # Five products of 2 x 8 x 16, and the costlier branch: 2 x 8 x 2.
  assert traffic.flops == 5 * 2 * 2 * 8 * 16 + 2 * 2 * 8 * 2
  assert not traffic.unknown_loops


def test_memory_is_counted_between_fusions():
  # Per iteration: the slice and its index are read (68 B), the slice stays in
  # vector memory; the gathered layer is written and read, x is read, y written,
  # and read and written by the reduction. After the loop: permutation, branch.
  turn = 68 + 256 + (32 + 256 + 64) + (64 + 64)
  assert hlo.read(PROGRAM).hbm == 5 * turn + (32 + 32) + (32 + 32 + 8)


def test_a_loop_without_a_limit_counts_once_and_is_listed():
  text = PROGRAM.replace("s32[] constant(5)", "s32[] add(%i.1, %i.1)")
  traffic = hlo.read(text)
  assert traffic.unknown_loops == ("loop",)
  assert traffic.collectives[0].times == 1


@pytest.mark.parametrize(
  "groups", ["[2,2]<=[2,2]T(1,0)", "mesh['a'=2,'b'=2] {'a'}"]
)
def test_groups_as_turned_ranges_and_as_axes_of_a_mesh(groups):
  text = PROGRAM.replace("{{0,2},{1,3}}", groups)
  assert hlo.read(text).collectives[1].groups == ((0, 2), (1, 3))


def test_an_exchange_that_is_spread_over_fusions_counts_where_it_starts():
  """It starts before the loop, overlaps with the loop and ends after it: 3
  shards of 256 B arrive once, not once per iteration."""
  text = PROGRAM.replace(
    "%body (state", (FOLDER / "spread.hlo").read_text() + "\n%body (state"
  )
  text = text.replace(
    "  %start = s32[]",
    "  %begun = (bf16[8,16]{1,0}, bf16[32,16]{1,0}) fusion(%x.3),"
    " calls=%begin\n"
    "  %start = s32[]",
  )
  text = text.replace(
    "  %y = bf16[2,16]{1,0} dot(%x, %gathered)",
    "  %going = bf16[32,16]{1,0} fusion(%gathered), calls=%go_on\n"
    "  %y = bf16[2,16]{1,0} dot(%x, %gathered)",
  )
  spread = [c for c in hlo.read(text).collectives if c.bytes == 3 * 256]
  assert [(c.kind, c.times) for c in spread] == [("all-gather", 1)]


def test_a_loop_whose_body_holds_two_turns():
  """Counts to 5 in steps of 2: three iterations."""
  end = "tuple(%i, %x, %w)\n}\n\n%condition"
  text = PROGRAM.replace(end, end.replace("%i", "%more")).replace(
    "  ROOT %next",
    "  %two = s32[] constant(2)\n  %more = s32[] add(%i, %two)\n  ROOT %next",
  )
  assert hlo.read(text).collectives[0].times == 3


def test_a_batched_product_written_as_a_convolution():
  """[3, 4, 8] x [3, 8, 16]: each of the 3 is multiplied by one kernel."""
  text = (FOLDER / "batched.hlo").read_text()
  assert hlo.read(text).flops == 2 * 3 * 4 * 8 * 16


def test_text_that_is_no_program_raises():
  with pytest.raises(ValueError, match="no ENTRY computation"):
    hlo.read("nothing")


def test_slices_within_a_fusion_within_a_fusion():
  """A row of 80 and its index are read, though a fusion changes the tiling of
  all rows, and a row is written; then all of both."""
  row = 512 * 4
  text = (FOLDER / "nested.hlo").read_text()
  assert hlo.read(text).hbm == row + 4 + row + 2 * 80 * row


def test_a_loop_that_its_data_may_end_has_no_trip_count():
  """Like decoding: at most 5 iterations, none once all rows have ended."""
  text = PROGRAM.replace(
    "  ROOT %less = pred[] compare(%i.1, %limit), direction=LT",
    "  %less = pred[] compare(%i.1, %limit), direction=LT\n"
    "  %some = pred[] constant(true)\n"
    "  ROOT %both = pred[] and(%less, %some)",
  )
  assert hlo.read(text).unknown_loops == ("loop",)
  assert hlo.read_decoding_loop(text).collectives[0].times == 1
