"""What happens, in order: flows of tasks, and the command line that starts them."""
