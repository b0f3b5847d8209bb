"""What a course needs: guesses that are scored, checks of exercises, copies of the labs, a class on one page."""
