"""`np6-assets doctor`: examine the settings, this machine and the account, and say what is wrong and what to do."""
