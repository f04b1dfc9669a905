"""Do synthetic cells help a lab with few images? Nested subsets, arms, trials, and the tests of docs/protocol.md."""
