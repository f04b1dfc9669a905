"""The studio: a page in the browser to edit cells, inspect and correct data sets, and make quizzes."""
