"""What is forgotten: a run that goes on compares with its own beginning, and tells what an uninterrupted one tells."""

from callbacks.text_perplexity import TextPerplexity
from tests.preference_stand_ins import fit
from tests.stand_ins import Answers, Rows, scratch, token_rows


def test_a_resumed_run_has_the_rows_of_an_uninterrupted_one(tmp_path):
    (tmp_path / "plain.txt").write_text("the cat sat on the mat\n")

    def run(name, epochs, **more):
        forgetting = TextPerplexity(str(tmp_path / "plain.txt"))
        data = Rows(token_rows(4), 2)
        done = fit(tmp_path / name, Answers(scratch()), data, callbacks=[forgetting], max_epochs=epochs, **more)
        rows = {row["step"]: row["text/perplexity"] for row in done.logs if "text/perplexity" in row}
        return done.trainer, forgetting.first, rows

    _, first, whole = run("whole", 2)
    begun, *_ = run("begun", 1)
    begun.save_checkpoint(tmp_path / "half.ckpt")
    _, compared_with, rest = run("rest", 2, ckpt_path=tmp_path / "half.ckpt")
    assert [*whole] == [0, 4]
    assert rest == {4: whole[4]}
    assert compared_with == first == whole[0]
