"""The command line: one file a command, and the options and error messages that they share."""
