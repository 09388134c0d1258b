"""Whether what was learned does what it should, said by somebody who did not teach it."""
