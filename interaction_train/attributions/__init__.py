"""Attribution methods, and what each does with the effects of players and sets of players."""
