"""One program a contender, each run as a whole process; its docstring says what it stands for."""
