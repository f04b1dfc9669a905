"""Reader studies and teaching quizzes: which class is this cell, and is it real or synthetic?"""
