from lm.forests.forest import Forest, Path
from lm.forests.readable import path_context, path_tokens

FOREST = Forest.from_paths(
    [Path([1, 2, 3, 4], 2), Path([1, 2, 3, 5, 6], 3), Path([7, 8], 1), Path([1, 2, 9], 2), Path([7, 8], 2)]
)


def test_tokens_of_a_path_and_what_it_scores():
    assert path_tokens(FOREST, 0) == ([1, 2, 3, 4], [False, False, True, True])
    assert path_tokens(FOREST, 1) == ([1, 2, 3, 5, 6], [False, False, False, True, True])
    assert path_tokens(FOREST, 4) == ([], [])


def test_what_comes_before_the_first_scored_token():
    assert [path_context(FOREST, path) for path in range(5)] == [[1, 2], [1, 2, 3], [7], [1, 2], []]
