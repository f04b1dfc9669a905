"""The studio: a page in the browser for editing cells, looking at data sets, correcting them, and making quizzes."""
