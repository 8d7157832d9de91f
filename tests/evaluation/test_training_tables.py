from dynse.evaluation.scores import RunRecord, UtteranceScore
from dynse.evaluation.training_tables import training_summary, training_table

LINES = [
    {"step": 10, "grad_norm": 9.0, "audio_s_per_s": 20.0},
    {"step": 10, "valid": {"loss": 1.0}},
    {"step": 20, "grad_norm": 1.0, "audio_s_per_s": 200.0},
    {"step": 30, "grad_norm": 2.0, "audio_s_per_s": 180.0},
]


def test_a_summary_is_of_the_logged_steps():
    assert training_summary(LINES) == {
        "steps": 30,
        "grad_norm": 2.0,
        "grad_norm_max": 9.0,
        "audio_s_per_s": 180.0,
    }
    assert training_summary([LINES[1]]) == {}


def test_a_row_is_the_mean_over_seeds_of_the_nets_that_were_trained():
    def record(net, seed, **extra):
        scores = (UtteranceScore("u", {"pesq": 1.5}),)
        return RunRecord(net, "c", "0" * 8, "t", "1" * 8, scores, {}, seed, extra=extra)

    one = training_summary(LINES)
    two = {**one, "grad_norm": 3.0, "audio_s_per_s": 100.0}
    records = [
        record("dense", 0, training=one),
        record("dense", 1, training=two),
        record("noisy", None),
    ]
    (row,) = training_table(records).rows
    assert row == ("dense", "2", "30", "2.50", "9.0", "140")
