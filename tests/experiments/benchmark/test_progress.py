"""Elapsed and remaining time of a benchmark."""

from fusar_jax.experiments.benchmark.progress import Progress


def test_lines_have_elapsed_time_and_an_estimate():
  """Turns of 10 s, 3 s and 5 s; a work without turns gets the mean, 6 s."""
  times = iter([0, 4, 14, 17, 22])
  lines = []
  progress = Progress(
    {"train": 4, "decode": 2}, clock=times.__next__, write=lines.append
  )
  progress.note("writing the weights")
  for _ in range(3):
    progress.turn("train", "done")
  assert lines == [
    "[0:00:04 elapsed] writing the weights",
    "[0:00:14 elapsed, about 0:00:50 left] train: done",
    "[0:00:17 elapsed, about 0:00:26 left] train: done",
    "[0:00:22 elapsed, about 0:00:17 left] train: done",
  ]
  assert progress.left == 5 + 2 * 6
