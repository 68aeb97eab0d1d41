"""`np6-assets doctor`: looks at the settings, this machine and the account, and says what is wrong and what to do."""
