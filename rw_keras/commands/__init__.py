"""The command line: `main`, a file for each command, and the flags that programs share."""
