"""What runs in the processes beside a program: standard library only."""
