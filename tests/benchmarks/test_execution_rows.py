"""A file executes as asked where no layer computes in floats and no value is more than a step off."""

import pytest

from benchmarks.execution import rows_of

GOOD = {
    "bits": "W4A4",
    "runtime": "ort",
    "layers": 56,
    "layers_not_in_integers": 0,
    "images_layer_by_layer": 200,
    "largest_difference_steps": 1.0,
    "images": 1000,
    "images_within_a_step": 970,
}


def test_rows_of_a_file_that_runs_in_integers() -> None:
    rows = {row.id: row.value for row in rows_of(GOOD) if row.ok}
    assert rows == {
        "execution.resnet56.W4A4.ort.layers_not_in_integers": 0,
        "execution.resnet56.W4A4.ort.layer_by_layer": 1.0,
    }


@pytest.mark.parametrize("change", [{"layers_not_in_integers": 1}, {"largest_difference_steps": 2.0}])
def test_one_layer_in_floats_or_two_steps_miss_the_bar(change: dict[str, float]) -> None:
    assert sum(not row.ok for row in rows_of(GOOD | change)) == 1
