"""Lists of token ids come back as they were."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lm.tokens.token_lists import TokenLists


@given(st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=5), max_size=9))
def test_lists_come_back_as_they_were(lists):
    kept = TokenLists()
    for one in lists:
        kept.append(one)
    assert [kept[n].tolist() for n in range(len(kept))] == lists
    assert kept.lengths.tolist() == [kept.length(n) for n in range(len(kept))] == [len(one) for one in lists]
    assert (kept.ids.dtype, len(kept.ids)) == (np.int32, sum(map(len, lists)))
